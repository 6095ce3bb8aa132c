use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::control::discover::FolderId;

const ROOT: &str = "/tree";

fn name(index: usize) -> ServiceName {
    ServiceName::new("shop", &format!("s{index}")).expect("valid")
}

fn file(index: usize, text: &str) -> TreeFile {
    let folder = Path::new(ROOT).join("shop").join(format!("s{index}"));
    TreeFile {
        name: name(index),
        path: folder.join("service.config.yaml"),
        shown: folder.join("service.config.yaml"),
        folder,
        content: FileContent::Bytes(Arc::from(text.as_bytes())),
    }
}

fn scan(present: &[usize]) -> Scan {
    let mut scan = Scan::default();
    scan.tree.root = PathBuf::from(ROOT);
    scan.tree.files = present.iter().map(|index| file(*index, "1")).collect();
    for folder in [ROOT, "/tree/shop"] {
        scan.folders.insert(PathBuf::from(folder), device(1));
    }
    scan
}

fn device(device: u64) -> FolderId {
    FolderId { device, inode: 7 }
}

/// A keeper at a clock of its own.
struct Clock {
    keeper: Keeper,
    now: Instant,
}

impl Clock {
    fn new(present: &[usize]) -> Self {
        let mut clock = Self {
            keeper: Keeper::default(),
            now: Instant::now(),
        };
        assert_eq!(clock.after(0, &scan(present)), present);
        clock
    }

    /// The services kept after so many milliseconds.
    fn after(&mut self, ms: u64, scan: &Scan) -> Vec<usize> {
        self.review(ms, scan, false)
    }

    fn review(&mut self, ms: u64, scan: &Scan, confirmed: bool) -> Vec<usize> {
        self.now += Duration::from_millis(ms);
        let none = BTreeSet::new();
        let kept = self.keeper.review(scan, &none, self.now, confirmed);
        kept.tree
            .files
            .iter()
            .map(|file| index(&file.name))
            .collect()
    }
}

fn index(name: &ServiceName) -> usize {
    name.name().trim_start_matches('s').parse().expect("number")
}

#[tokio::test]
async fn a_removal_takes_two_clean_scans_two_seconds_apart() {
    let mut clock = Clock::new(&[0, 1, 2]);
    assert_eq!(clock.after(0, &scan(&[0, 1])), [0, 1, 2]);
    assert_eq!(clock.after(1999, &scan(&[0, 1])), [0, 1, 2]);
    assert_eq!(clock.after(1, &scan(&[0, 1])), [0, 1]);
    // Seen again in between: the clock starts anew.
    assert_eq!(clock.after(0, &scan(&[0])), [0, 1]);
    assert_eq!(clock.after(1500, &scan(&[0, 1])), [0, 1]);
    assert_eq!(clock.after(600, &scan(&[0])), [0, 1]);
    assert_eq!(clock.after(2000, &scan(&[0])), [0]);
    // The last one may go.
    assert_eq!(clock.after(0, &scan(&[])), [0]);
    assert_eq!(clock.after(2000, &scan(&[])), Vec::<usize>::new());
}

#[tokio::test]
async fn more_than_half_waits_or_is_confirmed() {
    let mut clock = Clock::new(&[0, 1, 2, 3]);
    assert_eq!(clock.after(0, &scan(&[0])), [0, 1, 2, 3]);
    assert_eq!(clock.after(29_999, &scan(&[0])), [0, 1, 2, 3]);
    assert_eq!(clock.after(1, &scan(&[0])), [0]);
    let mut clock = Clock::new(&[0, 1, 2, 3]);
    assert_eq!(clock.after(0, &scan(&[0])), [0, 1, 2, 3]);
    assert_eq!(clock.review(10, &scan(&[0]), true), [0]);
    // Exactly half is not more than half.
    let mut clock = Clock::new(&[0, 1, 2, 3]);
    clock.after(0, &scan(&[0, 1]));
    assert_eq!(clock.after(2000, &scan(&[0, 1])), [0, 1]);
}

#[tokio::test]
async fn what_is_not_seen_is_not_gone() {
    let mut clock = Clock::new(&[0, 1]);
    let mut hidden = scan(&[]);
    hidden.blind.everything = true;
    for _ in 0..3 {
        assert_eq!(clock.after(60_000, &hidden), [0, 1]);
    }
    assert_eq!(clock.review(0, &hidden, true), [0, 1]);
    // A blind scan between two clean ones starts the clock anew.
    assert_eq!(clock.after(0, &scan(&[0])), [0, 1]);
    let mut partly = scan(&[0]);
    partly.blind.folders.insert("shop".to_owned());
    assert_eq!(clock.after(1000, &partly), [0, 1]);
    assert_eq!(clock.after(1000, &scan(&[0])), [0, 1]);
    assert_eq!(clock.after(2000, &scan(&[0])), [0]);
}

#[tokio::test]
async fn a_folder_on_another_file_system_is_a_missing_mount() {
    let mut clock = Clock::new(&[0]);
    let mut unmounted = scan(&[]);
    unmounted.folders.insert(PathBuf::from(ROOT), device(2));
    assert_eq!(clock.after(0, &unmounted), [0]);
    assert_eq!(clock.after(60_000, &unmounted), [0]);
    let kept = clock
        .keeper
        .review(&unmounted, &BTreeSet::new(), clock.now, false);
    assert_eq!(kept.tree.problems.len(), 1, "{:?}", kept.tree.problems);
    assert_eq!(kept.leaving, BTreeSet::from([name(0)]));
    assert_eq!(clock.review(0, &unmounted, true), Vec::<usize>::new());
}

#[tokio::test]
async fn unreadable_and_unsettled_files_stay_as_they_were() {
    let mut clock = Clock::new(&[0, 1]);
    let mut now = scan(&[0, 1, 2]);
    now.tree.files[0].content = FileContent::Unreadable("is a FIFO".to_owned());
    now.tree.files[1] = file(1, "half");
    let unsettled = BTreeSet::from([name(1), name(2)]);
    let kept = clock.keeper.review(&now, &unsettled, clock.now, false);
    let contents: Vec<_> = kept.tree.files.iter().map(|file| &file.content).collect();
    assert_eq!(contents, [&file(0, "1").content, &file(1, "1").content]);
    assert_eq!(kept.tree.problems.len(), 1);
    assert_eq!(kept.tree.problems[0].service, Some(name(0)));
    // Settled: believed.
    assert_eq!(clock.after(0, &now), [0, 1, 2]);
    let kept = clock
        .keeper
        .review(&now, &BTreeSet::new(), clock.now, false);
    assert_eq!(kept.tree.files[1].content, file(1, "half").content);
}

proptest! {
    /// Whatever is seen and however the time goes: a service that was there is
    /// only ever dropped when it was absent from every clean scan of at least
    /// the last two seconds.
    #[test]
    fn nothing_goes_early(steps in prop::collection::vec(
        (0_u64..4000, any::<[bool; 4]>(), prop::bool::weighted(0.2)), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let _guard = runtime.enter();
        let mut clock = Clock::new(&[0, 1, 2, 3]);
        let mut held: Vec<usize> = vec![0, 1, 2, 3];
        let mut missing_ms = [None::<u64>; 4];
        for (ms, present, blind) in steps {
            let present: Vec<usize> = (0..4).filter(|index| present[*index]).collect();
            let mut look = scan(&present);
            look.blind.everything = blind;
            let kept = clock.after(ms, &look);
            for (index, missing_ms) in missing_ms.iter_mut().enumerate() {
                *missing_ms = match *missing_ms {
                    _ if blind || present.contains(&index) => None,
                    None => Some(0),
                    Some(before) => Some(before + ms),
                };
                if held.contains(&index) && !kept.contains(&index) {
                    prop_assert!(missing_ms.is_some_and(|total| total >= 2000));
                }
                if present.contains(&index) {
                    prop_assert!(kept.contains(&index));
                }
            }
            held = kept;
        }
    }
}
