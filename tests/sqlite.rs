//! What only a file can do: be in use, be somebody else's, be damaged.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use commits::{EPOCH, after, created, ended, head, room};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tandem::domain::Head;
use tandem::repository::sqlite::SqliteRepository;
use tandem::repository::{Repository, RepositoryError};

#[tokio::test]
async fn the_data_directory_is_created_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b/data");
    let repository = SqliteRepository::open(&deep).await.unwrap();
    assert_eq!(repository.path(), deep.join("tandem.db"));
    repository.ping().await.unwrap();
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&deep).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "hashes of PINs are in there");
    }
}

#[tokio::test]
async fn a_directory_of_no_use_is_one_line_that_names_it_and_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "not a directory").unwrap();
    let refusals = [
        ("file", "file: it is a file; name a directory"),
        ("file/data", "file/data: a part of its path is a file"),
        ("nul\0\n", "nul\\u{0}\\n: its path holds a NUL character"),
    ];
    for (name, line) in refusals {
        let error = SqliteRepository::open(&dir.path().join(name)).await.unwrap_err();
        assert!(matches!(error, RepositoryError::DataDir { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("DATA_DIR={}/{line}", dir.path().display()));
    }
    let forbidden = SqliteRepository::open(Path::new("/proc/tandem")).await.unwrap_err().to_string();
    assert!(forbidden.starts_with("DATA_DIR=/proc/tandem: ") && !forbidden.contains('\n'), "{forbidden}");
}

/// Root may write anywhere, so the server's own program is run as another user.
#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_the_server_may_not_write_into_is_one_line() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o555)).tempdir().unwrap();
    for (data, line) in [
        ("", "the server's user may not write into it: chown it, or name another"),
        ("/deep", "the server's user may not make it: make it and chown it, or name another"),
    ] {
        let data = format!("{}{data}", dir.path().display());
        let error = as_nobody(&data);
        assert_eq!(error, format!("DATA_DIR={data}: {line}"));
    }
}

/// The error of opening as a user without rights: this test's program, run again.
#[cfg(unix)]
fn as_nobody(data: &str) -> String {
    let copy = tempfile::Builder::new().tempfile_in("/tmp").unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), copy.path()).unwrap();
    let program = copy.into_temp_path();
    let is_root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    let mut run = Command::new(if is_root { "setpriv".as_ref() } else { program.as_os_str() });
    if is_root {
        run.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&*program);
    }
    run.args(["--exact", "--ignored", "--nocapture", "the_process_that_opens_and_says_why_not"]).env("DATA", data);
    let output = run.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|line| line.split_once("verdict: "));
    line.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr))).1.to_owned()
}

#[tokio::test]
#[ignore = "run by another test"]
async fn the_process_that_opens_and_says_why_not() {
    let data = std::env::vars().find_map(|(name, value)| (name == "DATA").then_some(value)).unwrap();
    println!("verdict: {}", SqliteRepository::open(Path::new(&data)).await.unwrap_err());
}

#[tokio::test]
async fn a_directory_of_any_name_is_used() {
    let dir = tempfile::tempdir().unwrap();
    for name in [" my films ", "?mode=memory", "50%20#\u{e9}", "a\nb"] {
        let data = dir.path().join(name);
        let repository = SqliteRepository::open(&data).await.unwrap();
        repository.append(&[created(&room("friday"), Head::default(), EPOCH)]).await.unwrap();
        assert_eq!(repository.live_rooms().await.unwrap().len(), 1, "{name}");
        repository.close().await;
        assert!(data.join("tandem.db").exists(), "{name}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = "Dear diary, ".repeat(1000);
    std::fs::write(dir.path().join("tandem.db"), &text).unwrap();
    let error = SqliteRepository::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Damaged { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("tandem.db") && said.contains("restore a backup") && !said.contains('\n'), "{said}");
    assert_eq!(std::fs::read_to_string(dir.path().join("tandem.db")).unwrap(), text);
}

#[tokio::test]
async fn a_database_with_a_damaged_page_is_one_line_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let repository = SqliteRepository::open(dir.path()).await.unwrap();
    let rooms: Vec<_> = (0..200).map(|n| created(&room(&format!("room-{n}")), Head::default(), EPOCH)).collect();
    repository.append(&rooms).await.unwrap();
    repository.close().await;
    let path = dir.path().join("tandem.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // The first pages are the schema, which is read before the rest.
    let end = bytes.len();
    bytes[6 * 4096..end].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let failed = match SqliteRepository::open(dir.path()).await {
        Ok(repository) => repository.live_rooms().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(failed, RepositoryError::Damaged { .. }), "{failed:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_lock_file_that_is_a_link_is_refused_and_its_target_left_alone() {
    use std::os::unix::fs::symlink;
    type Link = fn(&Path, &Path) -> std::io::Result<()>;
    let links: [Link; 2] = [|target, link| symlink(target, link), |target, link| std::fs::hard_link(target, link)];
    for link in links {
        let dir = tempfile::tempdir().unwrap();
        let (data, diary) = (dir.path().join("data"), dir.path().join("diary"));
        std::fs::create_dir(&data).unwrap();
        std::fs::write(&diary, "Dear diary").unwrap();
        link(&diary, &data.join("tandem.lock")).unwrap();
        let error = SqliteRepository::open(&data).await.unwrap_err().to_string();
        assert_eq!(std::fs::read_to_string(&diary).unwrap(), "Dear diary", "{error}");
        assert!(error.starts_with("DATA_DIR=") && error.contains("tandem.lock"), "{error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_of_a_directory_that_was_there_are_the_server_s_own() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let modes = || -> Vec<(String, u32)> {
        let files = std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        files
            .map(|file| {
                (file.file_name().into_string().unwrap(), file.metadata().unwrap().permissions().mode() & 0o777)
            })
            .collect()
    };
    let repository = SqliteRepository::open(dir.path()).await.unwrap();
    repository.append(&[created(&room("friday"), Head::default(), EPOCH)]).await.unwrap();
    assert!(modes().len() >= 4 && modes().iter().all(|(_, mode)| *mode == 0o600), "{:?}", modes());
    // One that an earlier version made.
    drop(repository);
    for file in ["tandem.db", "tandem.db-wal", "tandem.db-shm"] {
        let path = dir.path().join(file);
        if path.exists() {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
    let repository = SqliteRepository::open(dir.path()).await.unwrap();
    repository.append(&[created(&room("sunday"), Head::default(), EPOCH)]).await.unwrap();
    assert!(modes().iter().all(|(_, mode)| *mode == 0o600), "{:?}", modes());
}

/// A change of the film to an address of that many bytes.
fn film(room: &tandem::domain::RoomId, expected: Head, address: &str) -> tandem::commit::Commit {
    let mut commit = after(room, expected);
    let mut entries = commit.entries.to_vec();
    entries[0].kind = "url_changed";
    entries[0].audit = format!("{{\"by\":\"ann\",\"url\":\"{address}\"}}").into();
    commit.entries = entries.into();
    commit.row.url = Some(address.to_owned());
    commit
}

#[tokio::test]
async fn a_flood_of_addresses_stays_within_the_bound_and_the_oldest_history_goes() {
    const MOST: u64 = 32 << 20;
    let dir = tempfile::tempdir().unwrap();
    let repository = SqliteRepository::open_bounded(dir.path(), Some(MOST)).await.unwrap();
    let friday = room("friday");
    repository.append(&[created(&friday, Head::default(), EPOCH)]).await.unwrap();
    let mut at = head(EPOCH, 1);
    // 40 MB of addresses, each another one.
    for _ in 0..40 {
        let mut batch = Vec::new();
        for _ in 0..500 {
            batch.push(film(&friday, at, &format!("https://example.org/{}/{}", at.seq, "x".repeat(2000))));
            at = batch.last().unwrap().next;
        }
        repository.append(&batch).await.unwrap();
        let bytes = std::fs::metadata(repository.path()).unwrap().len();
        assert!(bytes <= MOST, "{bytes}");
    }
    let events = repository.events(&friday, Head { epoch: EPOCH, seq: at.seq - 100 }, 1000).await.unwrap();
    assert_eq!(events.len(), 100, "the newest are there");
    assert!(events.iter().all(|event| event.data.contains("\"url\":\"https://example.org/")));
    assert_eq!(repository.heads(std::slice::from_ref(&friday)).await.unwrap()[&friday], at);
    assert_eq!(shell(dir.path()).await.check().await, "ok");
}

#[tokio::test]
async fn a_filled_database_of_3_0_0_is_carried_over_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let first = "0001_rooms_users_events.sql";
    let sql = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite/0001_rooms_users_events.sql");
    std::fs::copy(sql, old.path().join(first)).unwrap();
    let url = format!("sqlite://{}/tandem.db?mode=rwc", dir.path().display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    sqlx::migrate::Migrator::new(old.path()).await.unwrap().run_direct(None, &mut connection, false).await.unwrap();
    let mut old_shell = Shell(connection);
    for filled in [
        format!(
            "INSERT INTO rooms VALUES ('friday', {EPOCH}, 1, 'ann', 'https://example.org/old', 1.5, 5, 0, 1, 5, 1795000001234567, NULL), \
             ('over', {EPOCH}, 9, NULL, NULL, 0, 5, 0, 0, 5, 9223372036854775807, 6)"
        ),
        "INSERT INTO room_fields VALUES ('friday', 'core', x'7b7d')".to_owned(),
        "INSERT INTO users VALUES ('friday', 'ann', 'Ann', 1, 1, 1795000001000001, 5, NULL), ('over', 'ben', 'Ben', 2, 0, 5, 6, 7)".to_owned(),
        "INSERT INTO short_links VALUES ('abc1234', 'friday', 5, 1795000061000001)".to_owned(),
        format!(
            "INSERT INTO room_events (room_id, epoch, seq, kind, user_id, data, created_at) VALUES \
             ('friday', {EPOCH}, 1, 'url_changed', 'ann', '{{\"by\":\"ann\",\"url\":\"https://example.org/old\"}}', 1795000001000001), \
             ('odd', {EPOCH}, 1, 'x', NULL, 'no json', -5)"
        ),
        format!(
            "WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 3000) INSERT INTO room_events \
             (room_id, epoch, seq, kind, user_id, data, created_at) SELECT 'room-' || (seq % 20), {EPOCH}, seq, 'chat', 'ann', \
             '{{\"chars\":' || seq || '}}', {EPOCH}000 + seq FROM n"
        ),
    ] {
        old_shell.run(&filled).await;
    }
    drop(old_shell);
    let repository = SqliteRepository::open(dir.path()).await.unwrap();
    let friday = room("friday");
    assert_eq!(repository.live_rooms().await.unwrap()[0].head, head(EPOCH, 1));
    repository.append(&[film(&friday, head(EPOCH, 1), "https://example.org/new")]).await.unwrap();
    let data: Vec<String> =
        repository.events(&friday, Head::default(), 10).await.unwrap().into_iter().map(|event| event.data).collect();
    let of = |name: &str| format!("{{\"by\":\"ann\",\"url\":\"https://example.org/{name}\"}}");
    assert_eq!(data, [of("old"), of("new")]);
    let short = tandem::domain::ShortId::parse("abc1234").unwrap();
    let now = tandem::domain::RoomTime::from_micros(1_795_000_001_000_002);
    let link = repository.resolve_short(&short, now, now + std::time::Duration::from_secs(600)).await.unwrap();
    assert_eq!(link, Some(friday));
    let mut shell = shell(dir.path()).await;
    for (sql, expected) in [
        ("SELECT group_concat(details) FROM room_events WHERE room_id = 'odd'", "\"no json\""),
        ("SELECT created_at FROM room_events WHERE room_id = 'odd'", "1970-01-01 00:00:00.000000"),
        ("SELECT created_at FROM users WHERE user_id = 'ann'", "2026-11-18 11:06:41.000001"),
        ("SELECT left_at FROM users WHERE user_id = 'ben'", "1970-01-01 00:00:00.000007"),
        ("SELECT updated_at FROM rooms WHERE room_id = 'over'", "9999-12-31 23:59:59.999999"),
        (
            "SELECT count(*) || ' ' || sum(details ->> 'chars') || ' ' || max(created_at) FROM room_events WHERE event_type = 'chat'",
            "3000 4501500 2026-11-18 11:06:40.003000",
        ),
    ] {
        assert_eq!(shell.text(sql).await, expected, "{sql}");
    }
    assert_eq!(shell.check().await, "ok");
}

#[tokio::test]
async fn a_second_opener_is_told_who_has_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let first = SqliteRepository::open(dir.path()).await.unwrap();
    let error = SqliteRepository::open(dir.path()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RepositoryError::InUse { .. }), "{error:?}");
    for part in [dir.path().to_str().unwrap(), &std::process::id().to_string(), "DATA_DIR"] {
        assert!(text.contains(part), "{text}");
    }
    first.append(&[created(&room("friday"), Head::default(), EPOCH)]).await.unwrap();
    first.close().await;
    SqliteRepository::open(dir.path()).await.unwrap();
}

/// Two nodes of v2 that started together raced on the schema: one died half-way.
#[tokio::test]
async fn of_two_processes_that_open_a_fresh_directory_together_one_gets_it_and_the_other_is_told() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let start = || {
            Command::new(std::env::current_exe().unwrap())
                .args(["the_process_that_opens_and_waits", "--exact", "--ignored", "--nocapture"])
                .env(DIR, dir.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut both = [start(), start()];
        // Each says what it got before it waits for its input to end, so neither leaves before the other has tried.
        // Their output is kept open: a harness that can't print its last line fails.
        let mut outputs = both.each_mut().map(|child| BufReader::new(child.stdout.take().unwrap()));
        let mut said = outputs.each_mut().map(verdict);
        said.sort();
        assert_eq!(said, ["in use", "opened"]);
        for child in &mut both {
            drop(child.stdin.take());
        }
        for child in &mut both {
            assert!(child.wait().unwrap().success());
        }
        let repository = SqliteRepository::open(dir.path()).await.unwrap();
        repository.append(&[created(&room("friday"), Head::default(), EPOCH)]).await.unwrap();
        assert_eq!(shell(dir.path()).await.check().await, "ok");
    }
}

const DIR: &str = "TANDEM_TEST_OPEN_DIR";

fn verdict(output: &mut BufReader<ChildStdout>) -> String {
    let mut lines = output.lines().map(Result::unwrap);
    lines.find_map(|line| Some(line.rsplit_once("verdict: ")?.1.to_owned())).expect("a verdict")
}

#[tokio::test]
#[ignore = "started by of_two_processes_that_open_a_fresh_directory_together_one_gets_it_and_the_other_is_told"]
async fn the_process_that_opens_and_waits() {
    #[expect(clippy::disallowed_methods, reason = "no setting: the parent test's message")]
    let dir = std::env::var(DIR).unwrap();
    let opened = SqliteRepository::open(Path::new(&dir)).await;
    match &opened {
        Ok(_) => println!("verdict: opened"),
        Err(RepositoryError::InUse { .. }) => println!("verdict: in use"),
        Err(error) => println!("verdict: {error}"),
    }
    let mut end = String::new();
    std::io::stdin().read_line(&mut end).unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    SqliteRepository::open(dir.path()).await.unwrap().close().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', 1, x'00', 0)";
    shell(dir.path()).await.run(newer).await;
    for _ in 0..2 {
        let error = SqliteRepository::open(dir.path()).await.unwrap_err();
        assert!(matches!(error, RepositoryError::Newer { found: 99, .. }), "{error:?}");
        assert!(error.to_string().contains("tandem.db"), "{error}");
    }
}

#[tokio::test]
async fn opening_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut schemas = Vec::new();
    for _ in 0..3 {
        SqliteRepository::open(dir.path()).await.unwrap().close().await;
        schemas.push(shell(dir.path()).await.text("SELECT group_concat(sql) FROM sqlite_schema").await);
    }
    assert!(schemas[0].contains("room_events"));
    assert!(schemas.iter().all(|schema| *schema == schemas[0]));
}

#[tokio::test]
async fn a_damaged_event_is_an_error_that_names_what_is_damaged() {
    let friday = room("friday");
    let damages =
        [("UPDATE room_events SET created_at = 'noon'", "time"), ("UPDATE room_events SET details = x'fffe'", "event")];
    for (damage, named) in damages {
        let dir = tempfile::tempdir().unwrap();
        let repository = SqliteRepository::open(dir.path()).await.unwrap();
        repository.append(&[created(&friday, Head::default(), EPOCH)]).await.unwrap();
        shell(dir.path()).await.run(damage).await;
        let error = repository.events(&friday, Head::default(), 10).await.expect_err(damage);
        assert!(matches!(error, RepositoryError::Corrupt { what } if what == named), "{damage}: {error:?}");
    }
}

#[tokio::test]
async fn a_damaged_room_does_not_keep_the_others_from_coming_back() {
    let (friday, sunday) = (room("friday"), room("sunday"));
    let damages = ["SET room_id = 'not/an id' WHERE", "SET seq = -1 WHERE", "SET epoch = 'yesterday' WHERE"];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let repository = SqliteRepository::open(dir.path()).await.unwrap();
        let both = [created(&friday, Head::default(), EPOCH), created(&sunday, Head::default(), EPOCH)];
        repository.append(&both).await.unwrap();
        let mut shell = shell(dir.path()).await;
        shell.run("PRAGMA foreign_keys = OFF").await;
        shell.run(&format!("UPDATE rooms {damage} room_id = 'friday'")).await;
        let rooms: Vec<_> = repository.live_rooms().await.unwrap().into_iter().map(|room| room.room).collect();
        assert_eq!(rooms, std::slice::from_ref(&sunday), "{damage}");
    }
}

#[tokio::test]
async fn a_failure_in_the_middle_of_a_batch_stores_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let repository = SqliteRepository::open(dir.path()).await.unwrap();
    let mut shell = shell(dir.path()).await;
    shell
        .run("CREATE TRIGGER trouble BEFORE INSERT ON users BEGIN SELECT RAISE(ABORT, 'as if the disk were full'); END")
        .await;
    let (friday, sunday) = (room("friday"), room("sunday"));
    let mut quiet = created(&sunday, Head::default(), EPOCH);
    quiet.row.users.clear();
    let batch = [quiet, created(&friday, Head::default(), EPOCH)];
    let error = repository.append(&batch).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Query(_)), "{error:?}");
    assert_eq!(repository.live_rooms().await.unwrap(), []);
    assert_eq!(repository.events(&sunday, Head::default(), 10).await.unwrap(), []);
    shell.run("DROP TRIGGER trouble").await;
    repository.append(&batch).await.unwrap();
    repository.append(&[after(&sunday, head(EPOCH, 1)), ended(&sunday, head(EPOCH, 2))]).await.unwrap();
    assert_eq!(repository.live_rooms().await.unwrap().len(), 1);
}

/// An operator's shell on the same file.
struct Shell(SqliteConnection);

async fn shell(dir: &Path) -> Shell {
    Shell(SqliteConnection::connect(&format!("sqlite://{}/tandem.db", dir.display())).await.unwrap())
}

impl Shell {
    async fn run(&mut self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut self.0).await.unwrap();
    }

    async fn text(&mut self, sql: &'static str) -> String {
        sqlx::query_scalar(sql).fetch_one(&mut self.0).await.unwrap()
    }

    async fn check(mut self) -> String {
        self.text("PRAGMA integrity_check").await
    }
}
