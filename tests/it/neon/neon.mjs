// The npm client as it is published, against the SQL door. Its argument is the
// door's port.
import assert from "node:assert/strict";
import { neon, neonConfig, types } from "@neondatabase/serverless";

neonConfig.fetchEndpoint = `http://127.0.0.1:${process.argv[2]}/sql`;
const url = "postgresql://app:the-token-of-users@db.localhost/shop";
const sql = neon(url);

// Queries: tagged, with parameters, as arrays, with everything.
assert.deepEqual(await sql`select ${7}::int as n, ${"a'b"} as t`, [{ n: 7, t: "a'b" }]);
const arrays = neon(url, { arrayMode: true });
assert.deepEqual(await arrays`select 1 as a, 2 as a`, [[1, 2]]);
const full = await sql.query("select $1::int8 as big", ["9007199254740993"], { fullResults: true });
assert.equal(full.command, "SELECT");
assert.equal(full.rowCount, 1);
assert.equal(full.fields[0].name, "big");
assert.equal(full.fields[0].dataTypeID, types.builtins.INT8);
assert.deepEqual(full.rows, [{ big: "9007199254740993" }]);

// Types.
const when = new Date("2026-02-28T01:02:03.456Z");
const [row] = await sql`select
  ${when}::timestamptz as at, ${Buffer.from([0, 255])}::bytea as bytes, ${true}::bool as yes,
  ${{ a: [1, null] }}::jsonb as json, ${[1, null, 3]}::int[] as list,
  ${["x,y", 'q"']}::text[] as texts, ${null}::text as nothing, 'NaN'::float8 as nan,
  '1.10'::numeric as numeric, 'ä€\n' as text,
  '7d9bbd2e-5d4b-4c0c-9df1-2b1c7a2d7b1a'::uuid as uuid`;
assert.equal(row.at.getTime(), when.getTime());
assert.deepEqual([...row.bytes], [0, 255]);
assert.equal(row.yes, true);
assert.deepEqual(row.json, { a: [1, null] });
assert.deepEqual(row.list, [1, null, 3]);
assert.deepEqual(row.texts, ["x,y", 'q"']);
assert.equal(row.nothing, null);
assert.ok(Number.isNaN(row.nan));
assert.equal(row.numeric, "1.10");
assert.equal(row.text, "ä€\n");
assert.equal(row.uuid, "7d9bbd2e-5d4b-4c0c-9df1-2b1c7a2d7b1a");

// Batches.
await sql`create table t (id int constraint t_id primary key)`;
const [inserted, selected] = await sql.transaction([
  sql`insert into t values (1), (2) returning id`,
  sql`select count(*)::int as n from t`,
]);
assert.deepEqual(inserted, [{ id: 1 }, { id: 2 }]);
assert.deepEqual(selected, [{ n: 2 }]);
const [[level]] = await sql.transaction(
  (tx) => [tx`select current_setting('transaction_isolation') as l, current_setting('transaction_read_only') as r`],
  { isolationLevel: "Serializable", readOnly: true },
);
assert.deepEqual(level, { l: "serializable", r: "on" });

// Errors.
const duplicate = sql.transaction([sql`insert into t values (3)`, sql`insert into t values (1)`]);
await assert.rejects(duplicate, (error) => {
  assert.equal(error.name, "NeonDbError");
  assert.equal(error.code, "23505");
  assert.equal(error.constraint, "t_id");
  assert.equal(error.detail, "Key (id)=(1) already exists.");
  assert.equal(error.severity, "ERROR");
  return true;
});
assert.deepEqual(await sql`select count(*)::int as n from t`, [{ n: 2 }]);
await assert.rejects(sql`select nope`, (error) => error.code === "42703" && error.position === "8");
const stranger = neon("postgresql://app:another-token@db.localhost/shop");
await assert.rejects(stranger`select 1`, /401/);
console.log("the npm client is content");
