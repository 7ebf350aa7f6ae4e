"""An event-sourced sync engine for records that live in folders: state is a fold over the log."""
