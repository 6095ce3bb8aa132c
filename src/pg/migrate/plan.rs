//! What is to be done: the files beside the rows.

use std::fmt;

use super::files::MigrationFile;
use super::table::Row;

/// What a schema has and lacks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Indexes of files to be run, in order.
    pub(super) pending: Vec<usize>,
    /// Versions of the database that are newer than every file: another version
    /// of the service has been here.
    pub(super) ahead: Vec<i64>,
    /// Older versions whose files are gone.
    pub(super) missing: Vec<i64>,
    /// Why nothing is run.
    pub(super) refusals: Vec<Refusal>,
}

/// What keeps a service from being ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pg) enum Refusal {
    /// Began without a transaction and did not come to its end.
    Unfinished { version: i64, name: String },
    /// Applied with another text.
    Changed { version: i64, name: String },
    /// Not applied, but newer ones are.
    OutOfOrder { name: String, newest: i64 },
}

impl Refusal {
    /// Whether it is about this version, whose file or row has this name.
    pub(super) fn is_of(&self, version: i64, name: &str) -> bool {
        match self {
            Self::Unfinished { version: own, .. } | Self::Changed { version: own, .. } => {
                *own == version
            }
            Self::OutOfOrder { name: own, .. } => own == name,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished { version, name } => write!(
                formatter,
                "{name} was begun without a transaction and not finished: see what it left, then \
                 `outrigger migrate resolve {version} --applied` or `--retry`"
            ),
            Self::Changed { name, .. } => write!(
                formatter,
                "{name} was changed after it was applied: restore it and write a new migration"
            ),
            Self::OutOfOrder { name, newest } => write!(
                formatter,
                "{name} is out of order: version {newest} is applied already; give it a higher version"
            ),
        }
    }
}

/// Compares; both in order of version.
pub(super) fn compare(files: &[MigrationFile], rows: &[Row]) -> Plan {
    let mut plan = Plan::default();
    let newest_row = rows.last().map(|row| row.version);
    let newest_file = files.last().map(|file| file.version);
    for row in rows {
        let file = files.iter().find(|file| file.version == row.version);
        let (version, name) = (row.version, row.name.clone());
        match file {
            _ if !row.success => plan.refusals.push(Refusal::Unfinished { version, name }),
            Some(file) if !row.is_of(&file.checksum) => {
                let name = file.name.clone();
                plan.refusals.push(Refusal::Changed { version, name });
            }
            Some(_) => {}
            None if newest_file.is_none_or(|newest| version > newest) => plan.ahead.push(version),
            None => plan.missing.push(version),
        }
    }
    for (index, file) in files.iter().enumerate() {
        if rows.iter().any(|row| row.version == file.version) {
            continue;
        }
        match newest_row.filter(|newest| *newest > file.version) {
            Some(newest) => plan.refusals.push(Refusal::OutOfOrder {
                name: file.name.clone(),
                newest,
            }),
            None => plan.pending.push(index),
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(file: &MigrationFile) -> Row {
        Row {
            version: file.version,
            name: file.name.clone(),
            checksum: file.checksum.to_vec(),
            success: true,
        }
    }

    fn files(versions: &[i64]) -> Vec<MigrationFile> {
        let file = |version: &i64| MigrationFile::for_test(*version, "select 1");
        versions.iter().map(file).collect()
    }

    #[test]
    fn new_files_wait_and_old_ones_are_done() {
        let files = files(&[1, 2, 30]);
        assert_eq!(compare(&files, &[]).pending, [0, 1, 2]);
        let rows: Vec<Row> = files.iter().take(2).map(row).collect();
        let plan = compare(&files, &rows);
        assert_eq!((plan.pending, plan.refusals), (vec![2], vec![]));
    }

    #[test]
    fn a_database_that_is_ahead_is_no_problem() {
        let all = files(&[1, 2, 3]);
        let rows: Vec<Row> = all.iter().map(row).collect();
        let plan = compare(&files(&[1]), &rows);
        assert_eq!(
            plan,
            Plan {
                ahead: vec![2, 3],
                ..Plan::default()
            }
        );
        assert_eq!(compare(&[], &rows).ahead, [1, 2, 3]);
        assert_eq!(compare(&files(&[1, 3]), &rows).missing, [2]);
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let all = files(&[1, 2, 3]);
        let mut rows = vec![row(&all[0]), row(&all[2])];
        let plan = compare(&all, &rows);
        insta::assert_snapshot!(plan.refusals[0], @"2_x.sql is out of order: version 3 is applied already; give it a higher version");
        rows[0].checksum = vec![0; 32];
        insta::assert_snapshot!(compare(&all, &rows[..1]).refusals[0], @"1_x.sql was changed after it was applied: restore it and write a new migration");
        rows[0].success = false;
        insta::assert_snapshot!(compare(&all, &rows[..1]).refusals[0], @"1_x.sql was begun without a transaction and not finished: see what it left, then `outrigger migrate resolve 1 --applied` or `--retry`");
    }
}
