//! The guide over its routes.
