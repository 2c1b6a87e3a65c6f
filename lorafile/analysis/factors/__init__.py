"""What a setting does: trends along one factor, effects and interactions of two."""
