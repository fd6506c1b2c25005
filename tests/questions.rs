//! The questions of docs/OPERATIONS.md are asked of both databases, as they stand there.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/postgres.rs"]
mod postgres_server;
#[path = "support/repository_backends.rs"]
mod repository_backends;

use std::time::Duration;

use commits::{EPOCH, after, created, ended, head, room, row_of, time, user};
use repository_backends::Backend;
use tandem::commit::{Commit, ConnectionQuality, MemberReport};
use tandem::domain::Head;

/// Question → its statement in this dialect.
fn questions(dialect: &str) -> Vec<(String, String)> {
    let page = include_str!("../docs/OPERATIONS.md");
    let section = page.split("## Ten questions to the database").nth(1).expect("the questions");
    let section = section.split("\n## ").next().unwrap();
    let mut found: Vec<(String, String)> = Vec::new();
    for question in section.split("\\. ").skip(1) {
        let (asked, rest) = question.split_once('\n').unwrap();
        let statements: Vec<&str> =
            rest.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
        let ours = format!("-- {dialect}\n");
        let statement =
            statements.iter().find(|statement| statement.starts_with(&ours) || !statement.starts_with("-- "));
        let statement = statement.unwrap_or_else(|| panic!("nothing for {dialect}: {asked}"));
        found.push((asked.to_owned(), (*statement).to_owned()));
    }
    found
}

fn is(mut commit: Commit, kind: &'static str, audit: &str) -> Commit {
    let mut entries = commit.entries.to_vec();
    (entries[0].kind, entries[0].audit) = (kind, audit.to_owned().into());
    commit.entries = entries.into();
    commit
}

/// Each question, asked of a database of two live rooms and one that has ended; how many rows it finds.
async fn asked(backend: impl Backend, dialect: &str) -> Vec<usize> {
    let repository = backend.open().await.unwrap();
    let (friday, sunday, over) = (room("friday"), room("sunday"), room("over"));
    let mut first = is(created(&friday, Head::default(), EPOCH), "room_created", "{}");
    first.row.users.push(row_of("ben", 2, first.row.at));
    let film = is(after(&friday, head(EPOCH, 1)), "url_changed", r#"{"by":"ann","url":"https://example.org/film"}"#);
    let kicked = is(after(&friday, head(EPOCH, 2)), "member_left", r#"{"user":"eve","reason":"Kicked"}"#);
    let batch = [
        first,
        film,
        kicked,
        is(created(&sunday, Head::default(), EPOCH), "room_created", "{}"),
        is(created(&over, Head::default(), EPOCH), "room_created", "{}"),
        ended(&over, head(EPOCH, 1)),
    ];
    repository.append(&batch).await.unwrap();
    // The line is poor now, by the clock of the database.
    let now = tandem::clock::Clock::start().now();
    let report = |name: &str, quality, at| MemberReport {
        room: friday.clone(),
        user: user(name),
        position: Some(12.5),
        playing: Some(true),
        quality: Some(quality),
        at,
    };
    let later = time(head(EPOCH, 5)).max(now + Duration::from_secs(30));
    let reports = [report("ann", ConnectionQuality::Good, later), report("ben", ConnectionQuality::Poor, later)];
    repository.store_reports(&reports).await.unwrap();
    let mut rows = Vec::new();
    for (question, statement) in questions(dialect) {
        let found = tokio::time::timeout(Duration::from_secs(30), backend.ask(&statement)).await;
        rows.push(found.unwrap_or_else(|_| panic!("{question} takes too long")).len());
    }
    rows
}

const ROWS: [usize; 10] = [2, 2, 2, 1, 3, 1, 1, 1, 1, 1];

#[tokio::test]
async fn postgresql_answers_the_questions_of_the_runbook() {
    assert_eq!(asked(repository_backends::postgres().await, "PostgreSQL").await, ROWS);
}

#[tokio::test]
async fn sqlite_answers_the_questions_of_the_runbook() {
    assert_eq!(asked(repository_backends::sqlite().await, "SQLite").await, ROWS);
}
