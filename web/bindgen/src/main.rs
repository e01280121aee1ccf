//! What `wasm-bindgen --target web` does, without a program to install: the crate behind it, with this project's
//! settings.
//!
//! `bindgen COMPILED.wasm FOLDER` writes `FOLDER/NAME.js`, `NAME.d.ts` and `NAME_bg.wasm`.

use std::process::ExitCode;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [compiled, folder] = arguments.as_slice() else {
        eprintln!("bindgen: `COMPILED.wasm FOLDER` is expected, found {} arguments", arguments.len());
        return ExitCode::from(2);
    };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(compiled).typescript(true).remove_name_section(true).remove_producers_section(true);
    // So that `init()` without an argument finds the file beside the script.
    bindgen.omit_default_module_path(false);
    let made = bindgen.web(true).and_then(|bindgen| bindgen.generate(folder));
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bindgen: {compiled}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
