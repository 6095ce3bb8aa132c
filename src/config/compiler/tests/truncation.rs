//! Files that were cut off, and files of noise.

use proptest::prelude::*;

use super::*;

/// What a policy asks of a GET of a path: rules as `auth` applies them.
fn asked(policy: &crate::model::AuthPolicy, path: &str) -> crate::model::Requirement {
    use crate::model::{Deny, Requirement, Segment, Strategy};
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let fits = |glob: &crate::model::PathGlob| {
        let mut rest = parts.as_slice();
        for segment in &glob.segments {
            match (segment, rest.split_first()) {
                (Segment::Rest, _) => return true,
                (Segment::One, Some((_, after))) => rest = after,
                (Segment::Literal(text), Some((first, after))) if **text == **first => rest = after,
                _ => return false,
            }
        }
        rest.is_empty()
    };
    for rule in &policy.rules {
        let by_path = rule.paths.is_empty() || rule.paths.iter().any(fits);
        let by_method = rule.methods.is_empty() || rule.methods.iter().any(|one| &**one == "GET");
        if by_path && by_method {
            if rule.deny == Deny::Everyone {
                return Requirement::AnyOf(vec![Strategy::Mtls]);
            }
            return rule
                .requirement
                .clone()
                .unwrap_or_else(|| policy.requirement.clone());
        }
    }
    policy.requirement.clone()
}

/// Files are cut off where a writer was stopped. A prefix fails, or says
/// nothing of authentication (which the control loop refuses where something
/// was said before), or opens no path that the whole does not open.
#[test]
fn no_prefix_of_an_example_is_weaker() {
    use crate::model::Requirement;
    let paths = [
        "/",
        "/x",
        "/public/a",
        "/assets/a/logo",
        "/assets/a",
        "/admin/a",
        "/both",
        "/oauth2/a",
        "/p",
        "/pub",
        "/a",
        "/in",
        "/internal/x",
    ];
    for text in crate::config::examples::SERVICES {
        let mut case = example(text);
        let whole = spec(&case.compile(), "shop/cart");
        let mut compiler = case.compiler();
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let prefix = text.get(..end).expect("a boundary");
            case.files.insert("shop/cart".to_owned(), prefix.to_owned());
            let compiled = compiler.compile(&case.tree());
            let Some((_, Compiled::Local(LocalService { spec: Ok(cut), .. }))) = compiled
                .services
                .iter()
                .find(|(name, _)| name.key() == "shop/cart")
            else {
                continue;
            };
            if !cut.auth.explicit {
                continue;
            }
            for path in paths {
                let was_open = asked(&whole.auth, path) == Requirement::None;
                let is_open = asked(&cut.auth, path) == Requirement::None;
                assert!(was_open || !is_open, "{path} is open in:\n{prefix}");
            }
        }
    }
}

fn compile_bytes(bytes: &[u8], extension: &str) -> Compilation {
    let case = one("");
    let mut tree = case.tree();
    for file in &mut tree.files {
        file.content = FileContent::Bytes(Arc::from(bytes));
        file.shown = PathBuf::from(format!("x.{extension}"));
    }
    case.compiler().compile(&tree)
}

/// Fragments that files are made of, so that noise gets past the scanner.
const FRAGMENTS: [&str; 32] = [
    "port: 3001\n",
    "auth:\n",
    "  strategy: ",
    "jwt",
    "none\n",
    "- ",
    "  - ",
    "{",
    "}",
    "[",
    "]",
    ",",
    ": ",
    "\n",
    "\t",
    "\"",
    "'",
    "|",
    ">",
    "&a ",
    "*a",
    "!x ",
    "---\n",
    "...\n",
    "? ",
    "#",
    "${env:",
    "${file:",
    "}",
    "\u{feff}",
    "null",
    "x-y: 1\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        compile_bytes(&bytes, "yaml");
        compile_bytes(&bytes, "json");
    }

    #[test]
    fn any_fragments_are_read_or_refused(
        parts in proptest::collection::vec(0..FRAGMENTS.len(), 0..60),
    ) {
        let text: String = parts.iter().map(|index| FRAGMENTS[*index]).collect();
        compile_bytes(text.as_bytes(), "yaml");
    }

    #[test]
    fn examples_with_a_changed_byte(
        which in 0..crate::config::examples::SERVICES.len(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = crate::config::examples::SERVICES[which].as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        compile_bytes(&bytes, "yaml");
    }
}

/// A MiB of one shape must be refused quickly, not understood slowly.
#[test]
fn bombs_do_not_go_off() {
    let started = std::time::Instant::now();
    for shape in [
        "[", "{", "- ", "a: ", "? ", "{a: ", "[a, ", "\"", "'", "|\n ", "# ", "&a ", "*a ", "!a ",
        "a\n", "${", "-\n", "a:\n ", "[],", "{},", "\n", "x-a: 1\n", ", ", ": ",
    ] {
        let text = shape.repeat((1 << 20) / shape.len());
        let compiled = compile_bytes(text.as_bytes(), "yaml");
        assert!(!texts(&compiled).is_empty(), "{shape:?}");
    }
    let laughs = "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\n";
    insta::assert_snapshot!(texts(&compile_bytes(laughs.as_bytes(), "yaml")), @r"
    x.yaml:1:4: anchors and aliases are not supported
    hint: write the value out
    ");
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}
