//! Files and environment to validated settings, with every problem at once.
