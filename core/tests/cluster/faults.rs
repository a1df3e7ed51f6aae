//! What survives the loss of nodes.
