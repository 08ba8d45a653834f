//! Mistakes in the models and around them, made on purpose one at a time: the checks must shout.

/// pg_rewind does not wait for the source's first checkpoint.
pub(crate) fn rewind_at_once() -> bool {
    false
}
