//! Lists the price sources, so that one more is one more file in `src/quote/source/` and nothing else: every file there
//! with a line `impl PriceSource for Name` is a module of the list that `src/quote/source.rs` includes.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

const FOLDER: &str = "src/quote/source";
const IMPLEMENTS: &str = "impl PriceSource for ";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={FOLDER}");
    println!("cargo::rerun-if-changed=build.rs");
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let mut sources = Vec::new();
    for entry in fs::read_dir(FOLDER)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let names = text.lines().filter_map(|line| line.strip_prefix(IMPLEMENTS)?.split_whitespace().next());
            let module = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            sources.extend(names.map(|name| (module.clone(), name.to_owned())));
        }
    }
    sources.sort();
    let mut list = String::new();
    let mut modules: Vec<&String> = sources.iter().map(|(module, _)| module).collect();
    modules.dedup();
    for module in modules {
        let path = Path::new(&root).join(FOLDER).join(format!("{module}.rs"));
        let _ = writeln!(list, "#[path = {path:?}]\nmod {module};");
    }
    list.push_str("/// Every source that is asked over HTTP.\npub const ALL: &[&dyn PriceSource] = &[");
    for (module, name) in &sources {
        let _ = write!(list, "&{module}::{name}, ");
    }
    list.push_str("];\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("sources.rs"), list)
}
