"""The pages of the read-only web page. Built as trees of elements, so that no text can become markup."""
