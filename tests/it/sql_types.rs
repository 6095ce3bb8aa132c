//! Values through the SQL door: what goes in comes out.

use serde_json::{Value, json};

use crate::support::postgres::Cluster;
use crate::support::sql::{daemon_with, query, request};
use crate::support::wait::shared_machine;

const UUID: &str = "7d9bbd2e-5d4b-4c0c-9df1-2b1c7a2d7b1a";

/// Type, parameter, what JSON has of it, what the raw text is.
#[rustfmt::skip] // a table reads best with one row a line
fn values() -> Vec<(&'static str, Value, Value, &'static str)> {
    vec![
        ("int2", json!(-7), json!(-7), "-7"),
        ("int4", json!("42"), json!(42), "42"),
        ("int8", json!(9_007_199_254_740_993_i64), json!("9007199254740993"), "9007199254740993"),
        ("numeric", json!("1.10"), json!("1.10"), "1.10"),
        ("numeric", json!("NaN"), json!("NaN"), "NaN"),
        ("float8", json!(0.5), json!(0.5), "0.5"),
        ("float8", json!("NaN"), json!("NaN"), "NaN"),
        ("float4", json!("-Infinity"), json!("-Infinity"), "-Infinity"),
        ("text", json!("ä\"\\\n\u{1}€"), json!("ä\"\\\n\u{1}€"), "ä\"\\\n\u{1}€"),
        ("text", json!(""), json!(""), ""),
        ("bytea", json!("\\x00ff"), json!("\\x00ff"), "\\x00ff"),
        ("bool", json!(true), json!(true), "t"),
        ("date", json!("2026-02-28"), json!("2026-02-28"), "2026-02-28"),
        ("timestamp", json!("2026-02-28 01:02:03.5"), json!("2026-02-28 01:02:03.5"), "2026-02-28 01:02:03.5"),
        ("uuid", json!(UUID), json!(UUID), UUID),
        ("jsonb", json!({"a": [1, null]}), json!({"a": [1, null]}), "{\"a\": [1, null]}"),
        ("json", json!("[1, \"x\"]"), json!([1, "x"]), "[1, \"x\"]"),
        ("int4[]", json!([1, null, 3]), json!([1, null, 3]), "{1,NULL,3}"),
        ("text[]", json!(["a,\"b\\", null]), json!(["a,\"b\\", null]), "{\"a,\\\"b\\\\\",NULL}"),
        ("int4[][]", json!([[1, 2], [3, 4]]), json!([[1, 2], [3, 4]]), "{{1,2},{3,4}}"),
        ("bool[]", json!([true, false]), json!([true, false]), "{t,f}"),
        ("inet", json!("10.0.0.1"), json!("10.0.0.1"), "10.0.0.1"),
        ("timestamptz", json!("2026-02-28 01:02:03+00"), json!("2026-02-28 01:02:03+00"), "2026-02-28 01:02:03+00"),
        ("timestamptz", json!("infinity"), json!("infinity"), "infinity"),
        ("time", json!("01:02:03.5"), json!("01:02:03.5"), "01:02:03.5"),
        ("interval", json!("1 day 02:03:04"), json!("1 day 02:03:04"), "1 day 02:03:04"),
        ("money", json!("12.34"), json!("$12.34"), "$12.34"),
        ("varchar(3)", json!("abcd"), json!("abc"), "abc"),
        ("char(3)", json!("a"), json!("a  "), "a  "),
        ("oid", json!(4_294_967_295_u32), json!(4_294_967_295_u32), "4294967295"),
        ("float8", json!("1e308"), json!(1e308), "1e+308"),
        ("float8", json!(0.1), json!(0.1), "0.1"),
        ("json", json!("null"), json!(null), "null"),
        ("jsonb", json!("\"text\""), json!("text"), "\"text\""),
        ("int8[]", json!(["9007199254740993"]), json!(["9007199254740993"]), "{9007199254740993}"),
        ("numeric[]", json!(["1.10", "NaN"]), json!(["1.10", "NaN"]), "{1.10,NaN}"),
        ("float8[]", json!([0.5, "NaN"]), json!([0.5, "NaN"]), "{0.5,NaN}"),
        ("uuid[]", json!([UUID]), json!([UUID]), "{7d9bbd2e-5d4b-4c0c-9df1-2b1c7a2d7b1a}"),
        ("jsonb[]", json!([{"a": 1}]), json!([{"a": 1}]), "{\"{\\\"a\\\": 1}\"}"),
        ("text[]", json!([]), json!([]), "{}"),
        ("bytea[]", json!(["\\x00ff"]), json!(["\\x00ff"]), "{\"\\\\x00ff\"}"),
        ("int4range", json!("[1,3)"), json!("[1,3)"), "[1,3)"),
        ("point", json!("(1,2)"), json!("(1,2)"), "(1,2)"),
    ]
}

#[test]
fn every_common_type_comes_back_as_it_went_in() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "types", "");
    for (kind, parameter, typed, raw) in values() {
        let sql = format!("select $1::{kind} as v");
        let answer = query(&daemon, &sql, &json!([parameter]));
        assert_eq!(answer["rows"], json!([{"v": typed}]), "{kind}");
        let response = request("/sql", &json!({"query": sql, "params": [parameter]}))
            .header("Neon-Raw-Text-Output", "true")
            .header("Neon-Array-Mode", "true")
            .send(daemon.sql);
        assert_eq!(response.json()["rows"], json!([[raw]]), "{kind}");
        assert_eq!(response.json()["rowAsArray"], json!(true));
    }
    let answer = query(&daemon, "select $1::text as n", &json!([null]));
    assert_eq!(answer["rows"], json!([{"n": null}]));
    let field = &answer["fields"][0];
    assert_eq!(field["name"], "n");
    assert_eq!(field["dataTypeID"], 25);
    assert_eq!(field["dataTypeModifier"], -1);
    assert_eq!(field["format"], "text");
}
