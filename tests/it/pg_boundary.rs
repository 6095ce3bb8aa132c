//! What a service's role can do with whatever SQL it sends: nothing outside its
//! own place.

use crate::support::breakouts::{REFUSALS, breakouts};
use crate::support::postgres::Cluster;
use crate::support::site::Site;

const USERS: &str = "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL);\n\
                     INSERT INTO users VALUES (1, 'Ada');";
const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL);\n\
                      INSERT INTO orders VALUES (7, 1);";

fn shop(stem: &str, users: &str, orders: &str) -> Site<'static> {
    let site = Site::new(Cluster::shared(), stem);
    site.service("users", users);
    site.service("orders", orders);
    site.migration("users", "1_users.sql", USERS);
    site.migration("orders", "1_orders.sql", ORDERS);
    site.must(&["migrate", "up"]);
    site
}

/// The five characters of an error.
fn code(result: Result<String, String>) -> String {
    match result {
        Ok(rows) => format!("no error, but {rows:?}"),
        Err(error) => error.split(' ').next().unwrap_or_default().to_owned(),
    }
}

#[test]
fn no_sql_leads_out_of_a_shared_database_schema() {
    let site = shop("breakout", "isolation: shared", "isolation: shared");
    let (orders, base) = (site.role("orders"), &site.base);
    let login = site.login("users");
    let run = |sql: &str| site.sql_of(&login, base, sql);
    assert_eq!(run("SELECT name FROM users"), Ok("Ada".to_owned()));
    for sql in breakouts(&site.role("users"), &orders, base, &site.cluster.user) {
        let code = code(run(&sql.join("; ")));
        assert!(REFUSALS.contains(&code.as_str()), "{sql:?}: {code}");
    }
    assert_eq!(
        site.sql(&format!("SELECT user_id FROM {orders}.orders")),
        "1"
    );
    // Its own place it may use as it likes.
    let own = "CREATE TEMP TABLE t (x int); CREATE TABLE own (x int); DROP TABLE own";
    assert_eq!(run(own), Ok(String::new()));
    assert_eq!(run("SHOW search_path"), Ok(site.role("users")));
    assert_eq!(run("SHOW statement_timeout"), Ok("30s".to_owned()));
}

#[test]
fn an_isolated_service_cannot_reach_the_database_of_another() {
    let site = shop("apart", "isolation: isolated", "isolation: isolated");
    let (users, orders) = (
        format!("{}_users", site.base),
        format!("{}_orders", site.base),
    );
    let login = site.login("users");
    assert_eq!(
        site.sql_of(&login, &users, "SELECT name FROM users"),
        Ok("Ada".to_owned())
    );
    assert_eq!(code(site.sql_of(&login, &orders, "SELECT 1")), "42501");
    let shared = site.sql_of(&login, &site.base, "CREATE TABLE public.mine (x int)");
    assert_eq!(code(shared), "42501");
    // Not even somebody who may log in to the server at all.
    let guest = format!("{}_guest", site.base);
    site.sql(&format!("CREATE ROLE {guest} LOGIN PASSWORD 'guest'"));
    let peek = site.cluster.sql_as(&guest, "guest", &users, "SELECT 1");
    assert_eq!(code(peek), "42501");
}

#[test]
fn a_join_across_services_needs_both_to_agree() {
    let site = shop("joins", "sharesWith: [orders]", "reads: [users]");
    let users = site.role("users");
    let join =
        format!("SELECT o.id, u.name FROM orders o JOIN {users}.users u ON u.id = o.user_id");
    assert_eq!(site.sql_as("orders", &join), Ok("7|Ada".to_owned()));
    for sql in [
        format!("INSERT INTO {users}.users VALUES (2, 'Eve')"),
        format!("DELETE FROM {users}.users"),
        format!("SELECT * FROM {users}.outrigger_migrations"),
        format!("CREATE TABLE {users}.mine (x int)"),
    ] {
        assert_eq!(code(site.sql_as("orders", &sql)), "42501", "{sql}");
    }
    let back = format!("SELECT * FROM {}.orders", site.role("orders"));
    assert_eq!(code(site.sql_as("users", &back)), "42501");
    // A table of later is seen, too.
    site.migration("users", "2_more.sql", "CREATE TABLE more AS SELECT 5 AS x;");
    site.must(&["migrate", "up"]);
    let later = format!("SELECT x FROM {users}.more");
    assert_eq!(site.sql_as("orders", &later), Ok("5".to_owned()));
    // One side alone gives nothing and takes what there was.
    site.service("users", "isolation: shared");
    let (_, checked) = site.run(&["check"]);
    assert!(
        checked.contains("does not have this service in `sharesWith`"),
        "{checked}"
    );
    site.must(&["migrate", "up"]);
    assert_eq!(code(site.sql_as("orders", &join)), "42501");
    assert_eq!(code(site.sql_as("orders", &later)), "42501");
}
