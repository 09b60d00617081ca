//! Where secrets come from: OAuth token endpoints. Hands on what a server answered, unread.
