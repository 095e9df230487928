"""What several configs share: whole experiments on stories, toys and certificates, and a published script."""
