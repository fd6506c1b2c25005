//! Lossy lines between network namespaces, for the benches that need a network: `benches/loss`, and through its
//! subcommand `lines` `benches/sync`. A container's kernel may lack `netem`, so the delay, the jitter, the losses and
//! the width are made here, in user space.

pub(crate) mod link;
pub(crate) mod tunnel;
