"""Feature packs: features as plain files, to be shared without the audio, ours and those of other toolkits."""
