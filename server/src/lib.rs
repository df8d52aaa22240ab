//! syncwatch
