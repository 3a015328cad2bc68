"""What tests share: fakes, models, galleries, and twins of what is tested."""
