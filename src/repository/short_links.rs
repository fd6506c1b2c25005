//! Short links, one for a room: the statements, which read the same in every database. Who may run them at the same time
//! is each database's own affair.

use std::time::Duration;

/// Anybody may follow a link, so a link that is followed often is written once a minute at the most.
pub(super) const RENEW_AFTER: Duration = Duration::from_secs(60);

/// There are 36^7 = 78 billion ids: that so many draws in a row hit living ones is no chance, something is broken.
pub(super) const DRAWS: usize = 32;

/// The link of room `$2`, expired or not; it then lives until `$1`. A room that opens again keeps its link.
pub(super) const KEEP: &str = "UPDATE short_links SET expires_at = $1 WHERE room_id = $2 RETURNING short_id";

/// The room that id `$1` stood for, expired or not, until the row is pruned.
pub(super) const RECALL: &str = "SELECT room_id FROM short_links WHERE short_id = $1";

/// One row if the id is now this room's. An id that is taken is left alone, unless its life is over.
pub(super) const TAKE: &str = "INSERT INTO short_links (short_id, room_id, created_at, expires_at) \
     VALUES ($1, $2, $3, $4) \
     ON CONFLICT (short_id) DO UPDATE \
     SET room_id = excluded.room_id, created_at = excluded.created_at, expires_at = excluded.expires_at \
     WHERE short_links.expires_at <= excluded.created_at";

/// The room behind id `$1`, if it lives at `$2`, and at `$3` too.
pub(super) const FRESH: &str =
    "SELECT room_id FROM short_links WHERE short_id = $1 AND expires_at > $2 AND expires_at > $3";

/// The room behind id `$2`, if it lives at `$3`; then it lives until `$1`.
pub(super) const RESOLVE: &str =
    "UPDATE short_links SET expires_at = $1 WHERE short_id = $2 AND expires_at > $3 RETURNING room_id";
