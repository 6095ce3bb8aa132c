// The SQL door from JavaScript, with the npm client of Neon:
//   npm install @neondatabase/serverless
// SQL_URL is the door's address, SQL_TOKEN the service's doorToken where it has
// one; user, host and database of the URL below do not matter.
import { neon, neonConfig } from "@neondatabase/serverless";

neonConfig.fetchEndpoint = process.env.SQL_URL ?? "http://127.0.0.1:9902/sql";
const sql = neon(`postgresql://app:${process.env.SQL_TOKEN ?? "none"}@localhost/app`);

await sql`create table if not exists visits (name text, at timestamptz default now())`;
const name = "javascript";
await sql`insert into visits (name) values (${name})`;
// One transaction: all of them or none.
await sql.transaction([
  sql`insert into visits (name) values ('batch')`,
  sql`delete from visits where name = 'batch'`,
]);
for (const row of await sql`select name, count(*) from visits group by name order by name`) {
  console.log(row.name, row.count);
}
