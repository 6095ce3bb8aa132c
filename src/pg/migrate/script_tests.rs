use proptest::prelude::*;

use super::*;

fn texts(text: &str) -> Vec<&str> {
    let statements = split(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    statements.iter().map(|statement| statement.text).collect()
}

fn refusal(text: &str) -> String {
    split(text).expect_err(text).to_string()
}

#[test]
fn statements_end_at_semicolons_that_stand_alone() {
    assert_eq!(
        texts(
            "select 1;\n-- a; b\n select ';', \"a;b\", E'\\';' ;; /* ; /* ; */ ; */ select $$;$$"
        ),
        ["select 1", "select ';', \"a;b\", E'\\';'", "select $$;$$"]
    );
    assert_eq!(
        texts("select $a$ ; $$ ; $b$ $a$; select $1"),
        ["select $a$ ; $$ ; $b$ $a$", "select $1"]
    );
    assert_eq!(texts("select a$b$, c$b$; x"), ["select a$b$, c$b$", "x"]);
    assert_eq!(texts("select '\\'; select 2"), ["select '\\'", "select 2"]);
    assert_eq!(texts("select 'it''s;'; y"), ["select 'it''s;'", "y"]);
    assert_eq!(texts(" -- nothing\n ; /* */ ;"), [""; 0]);
    assert_eq!(
        texts("select 'ä;ö'; select \"ü;\""),
        ["select 'ä;ö'", "select \"ü;\""]
    );
    // A string goes on after a line break, by the rule that it began with.
    assert_eq!(
        texts("select E'a'\n 'b\\';c'; select 2"),
        ["select E'a'\n 'b\\';c'", "select 2"]
    );
}

#[test]
fn bodies_and_rules_hold_semicolons() {
    let function = "create or replace function f(a int) returns int\n begin atomic\n  \
                    select case when a > 1 then 1 else 2 end; select 3;\n end";
    assert_eq!(
        texts(&format!("{function}; select 1")),
        [function, "select 1"]
    );
    let procedure = "CREATE PROCEDURE p() BEGIN ATOMIC insert into t values (1); END";
    assert_eq!(texts(&format!("{procedure};")), [procedure]);
    let rule = "create rule r as on insert to t do also (delete from a; delete from b)";
    assert_eq!(texts(&format!("{rule}; select 1")), [rule, "select 1"]);
    let block = "do $do$ begin perform 1; commit; end $do$";
    assert_eq!(texts(&format!("{block};")), [block]);
}

#[test]
fn lines_are_those_of_the_first_word() {
    let text = "-- one\nselect 1;\n\n/* \n */\n  select '\n';\nselect 3";
    let lines: Vec<usize> = split(text)
        .expect("fine")
        .iter()
        .map(|one| one.line)
        .collect();
    assert_eq!(lines, [2, 6, 8]);
}

#[test]
fn transaction_control_is_refused_with_its_line() {
    for word in [
        "BEGIN",
        "begin work",
        "START TRANSACTION",
        "commit",
        "COMMIT AND CHAIN",
        "end",
        "ABORT",
        "rollback",
        "ROLLBACK WORK",
        "rollback prepared 'x'",
        "COMMIT PREPARED 'x'",
        "/* c */ commit",
        "prepare transaction 'x'",
    ] {
        let message = refusal(&format!("select 1;\n{word};\nselect 2;"));
        assert!(message.starts_with("line 2: `"), "{word}: {message}");
        assert!(
            message.contains("is transaction control"),
            "{word}: {message}"
        );
    }
    for fine in [
        "savepoint a",
        "rollback to a",
        "ROLLBACK WORK TO SAVEPOINT a",
        "release a",
        "set transaction isolation level serializable",
        "prepare p as select 1",
        "select 'commit'",
        "comment on table t is 'begin'",
        "create table commits (x int)",
        "set standard_conforming_strings = on",
        "copy t to '/tmp/x'",
    ] {
        assert_eq!(texts(fine), [fine], "{fine}");
    }
}

#[test]
fn what_cannot_run_here_is_named() {
    assert_eq!(
        refusal("\nCOPY t (a) FROM stdin;\n1\n\\.\n"),
        "line 2: `COPY … FROM STDIN` has no input here; use INSERT"
    );
    assert_eq!(
        refusal("\\connect x"),
        "line 1: a command of psql; only SQL can stand here"
    );
    for off in [
        "set standard_conforming_strings = off",
        "SET LOCAL standard_conforming_strings TO off",
    ] {
        assert!(refusal(off).contains("must stay on"), "{off}");
    }
    for (text, what) in [
        ("select 'a", "a string"),
        ("select E'a\\'", "a string"),
        ("select \"a", "a quoted name"),
        ("/* /* */", "a comment"),
        ("select $x$ $y$", "the string $x$"),
    ] {
        assert_eq!(refusal(text), format!("line 1: {what} is not closed"));
    }
}

proptest! {
    #[test]
    fn any_text_is_split_or_refused(text in "[-a-z'\"$;/*\\\\\n() Eä0-9]{0,60}") {
        if let Ok(statements) = split(&text) {
            for statement in statements {
                prop_assert!(!statement.text.is_empty());
                prop_assert!(text.contains(statement.text));
            }
        }
    }
}
