"""Feature packs: features as plain files that are shared without the audio, those of mmer and of other toolkits."""
