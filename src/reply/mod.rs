//! From a [`Kind`](crate::model::Kind) to what a client sees: the one set of tables.
