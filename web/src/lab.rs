//! The shader corner: the kernels with their texts; a text of somebody's own compiled, compared with the twins on the
//! op's cases, and timed beside the original.

use crate::thrown;
use crate::wait::{now, within};
use dqrm::engine::Engine;
use dqrm::engine::gpu::{self, GpuAdapter, GpuEngine};
use dqrm::lab::finding::{Finding, Severity};
use dqrm::lab::swap::Swap;
use dqrm::lab::timing::{Contestant, Timing};
use dqrm::lab::{self, compare, describe, timing};
use dqrm::ops::{self, Case};
use dqrm::plan::schedule::Schedule;
use dqrm::plan::variant::{Choice, choose};
use dqrm::plan::{Access, Elem, Kernel, Variant};
use serde::Serialize;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

/// Seconds that a device may take for a case, compilation included.
const PATIENCE: f64 = 20.0;
/// On a software adapter, kernels are timed at shapes of at most so many operations or bytes.
const SOFTWARE_WORK: u64 = 20_000_000;

/// Every kernel with its formula and its text, as JSON: `[{name, op, formula, file, source, workgroup, bindings:
/// [{name, access, type}], cases, variants: [{name, source, subgroup, workgroup}]}]`.
#[wasm_bindgen]
pub fn kernels() -> String {
    let all = ops::cases();
    let described = ops::kernels().into_iter().map(|kernel| {
        let bindings = kernel.bindings.iter().map(|b| {
            let access = if b.access == Access::Read { "read" } else { "read_write" };
            json!({ "name": b.name, "access": access, "type": if b.elem == Elem::F32 { "f32" } else { "u32" } })
        });
        let variants = offered(kernel).map(
            |v| json!({ "name": v.name, "source": v.wgsl(), "subgroup": v.subgroup.map(|s| s.to_string()), "workgroup": v.workgroup }),
        );
        json!({
            "name": kernel.name,
            "op": kernel.op,
            "formula": describe::formula(kernel).join("\n"),
            "file": format!("{}.wgsl", kernel.op),
            "source": kernel.source,
            "workgroup": kernel.workgroup,
            "bindings": bindings.collect::<Vec<_>>(),
            "cases": all.iter().filter(|case| describe::runs(case, kernel)).count(),
            "variants": variants.collect::<Vec<_>>(),
        })
    });
    Value::Array(described.collect()).to_string()
}

/// Variants whose texts a browser can read: those with cooperative matrices are written in wgpu's own WGSL.
fn offered(kernel: &'static Kernel) -> impl Iterator<Item = &'static Variant> {
    kernel.variants.iter().filter(|v| v.cooperative.is_none())
}

/// The cases that run a kernel (or an op, or a variant), as JSON: `[{name, flops, bytes}]`.
///
/// # Errors
/// As [`check`].
#[wasm_bindgen]
pub async fn cases(kernel: String, device: String) -> Result<String, JsValue> {
    let subject = Subject::named(&kernel).map_err(thrown)?;
    let adapter = adapter(&device).await.map_err(thrown)?;
    let all = ops::cases().into_iter().filter(|case| subject.runs(case, adapter.as_ref()));
    let listed = all.map(|case| {
        let work = subject.kernels.iter().map(|kernel| case.work(kernel));
        let (flops, bytes) = work.fold((0, 0), |(flops, bytes), work| (flops + work.flops, bytes + work.bytes));
        json!({ "name": case.name, "flops": flops, "bytes": bytes })
    });
    Ok(Value::Array(listed.collect()).to_string())
}

/// Compiles a text and compares it with the twins on every case that runs it, or on that of the name `case`, for whom one
/// at a time is better. Without a text, the kernel's own; then `kernel` may also name an op, for all of its kernels, or a variant.
///
/// `{"compiled", "errors": [{line, column, message}], "notes": […], "cases": [{name, passed, message, seconds}]}`. An error that
/// stands at no line has line 0.
///
/// # Errors
/// No such kernel, no such device, or a text for the CPU, which runs none.
#[wasm_bindgen]
pub async fn check(kernel: String, text: Option<String>, device: String, case: Option<String>) -> Result<String, JsValue> {
    let subject = Subject::named(&kernel).map_err(thrown)?;
    let adapter = adapter(&device).await.map_err(thrown)?;
    let wanted = |name: &str| case.as_ref().is_none_or(|case| case == name);
    let checked = checked(&subject, text.as_deref(), adapter.as_ref(), &wanted).await.map_err(thrown)?;
    serde_json::to_string(&checked).map_err(thrown)
}

/// Times a kernel for about so many seconds, in turns with its original when there is a text:
/// `{"shape", "original": {median_ms, low_ms, high_ms}, "edited": {…} | null, "gbytes_per_s", "gflops"}`; the rates are the
/// original's. `kernel` may also name a variant, which then stands for the edited text.
///
/// # Errors
/// As [`check`]; a text that does not compile; a device that is lost or does not answer.
#[wasm_bindgen]
pub async fn time(kernel: String, text: Option<String>, seconds: f64, device: String) -> Result<String, JsValue> {
    let subject = Subject::named(&kernel).map_err(thrown)?;
    let adapter = adapter(&device).await.map_err(thrown)?;
    let seconds = if seconds.is_finite() { seconds.clamp(0.01, 60.0) } else { 0.5 };
    let timed = within(PATIENCE + 4.0 * seconds, timed(&subject, text.as_deref(), seconds, adapter.as_ref())).await;
    Ok(timed.unwrap_or_else(|| Err(silence(PATIENCE + 4.0 * seconds))).map_err(thrown)?.to_string())
}

/// What is checked or timed.
#[derive(Debug)]
struct Subject {
    kernels: Vec<&'static Kernel>,
    variant: Option<&'static Variant>,
}

impl Subject {
    fn named(name: &str) -> Result<Subject, String> {
        let all = ops::kernels();
        let variant = |k: &'static Kernel| offered(k).find(|v| v.name == name);
        let kernels: Vec<&'static Kernel> = all.into_iter().filter(|k| k.name == name || k.op == name || variant(k).is_some()).collect();
        let kernels = match kernels.iter().find(|k| k.name == name) {
            Some(kernel) => vec![*kernel],
            None => kernels,
        };
        let variant = kernels.first().copied().filter(|k| k.name != name).and_then(variant);
        if kernels.is_empty() { Err(format!("there is no kernel `{name}`")) } else { Ok(Subject { kernels, variant }) }
    }

    fn choice(&self) -> Choice<'static> {
        self.variant.map_or(Choice::Portable, |v| Choice::Only(v.name))
    }

    /// The replacement, when there is a text.
    fn swap(&self, text: Option<&str>) -> Result<Option<Swap>, Box<Finding>> {
        let Some(text) = text else { return Ok(None) };
        if let Some(variant) = self.variant {
            let message = format!("`{}` is a variant; a text of your own takes the place of `{}`", variant.name, self.kernels[0].name);
            return Err(Box::new(Finding::error(message)));
        }
        Swap::unread(&self.kernels, "the text", text).map(Some)
    }

    /// Whether a case runs it on an adapter.
    fn runs(&self, case: &Case, adapter: Option<&GpuAdapter>) -> bool {
        let Some(variant) = self.variant else { return self.kernels.iter().any(|k| describe::runs(case, k)) };
        let mut commands = case.plan.phases.iter().flat_map(|p| &p.commands);
        adapter.is_some_and(|a| commands.any(|c| choose(&a.traits, c, Choice::Only(variant.name)).is_some()))
    }
}

/// The adapter that `device` means; none for the CPU engine.
async fn adapter(device: &str) -> Result<Option<GpuAdapter>, String> {
    let asked = async { if device == "cpu" { Vec::new() } else { gpu::adapters().await } };
    let dead = "the browser's GPU does not answer, maybe because of an earlier text; start the browser again, or use the CPU";
    let mut found = within(PATIENCE, asked).await.ok_or(dead)?;
    match device {
        "auto" => Ok(found.into_iter().find(|a| !a.is_software())),
        "gpu" if found.is_empty() => Err("this browser offers no GPU (WebGPU); shaders need one".into()),
        "gpu" => Ok(Some(found.swap_remove(0))),
        "cpu" => Ok(None),
        other => Err(format!("device `{other}`: `auto`, `gpu` and `cpu` are known")),
    }
}

fn silence(seconds: f64) -> dqrm::Error {
    let text = format!("the device gave no answer within {seconds:.0} s: a loop may never end, or the work is too much for it");
    dqrm::Error::Device(text)
}

/// Something wrong in a text.
#[derive(Debug, Serialize)]
struct Told {
    line: usize,
    column: usize,
    message: String,
}

impl Told {
    /// A place behind the text is told as its last line.
    fn of(finding: &Finding, text: &str) -> Told {
        let place = finding.places.first();
        let (line, column) = place.map_or((0, 1), |p| (p.line, p.column));
        match place.filter(|p| p.file.starts_with("shaders/")) {
            None => Told { line, column, message: finding.message.clone() },
            Some(place) => {
                let end = "is put behind the text, whose end may lack a brace, a semicolon or the end of a comment";
                let message = format!("{} (in line {line} of `{}`, which {end})", finding.message, place.file);
                Told { line: text.lines().count().max(1), column: 1, message }
            }
        }
    }
}

/// A case, run.
#[derive(Debug, Serialize)]
struct Ran {
    name: String,
    passed: bool,
    message: String,
    seconds: f64,
}

/// The answer of [`check`].
#[derive(Debug, Default, Serialize)]
struct Checked {
    compiled: bool,
    errors: Vec<Told>,
    notes: Vec<Told>,
    cases: Vec<Ran>,
}

async fn checked(
    subject: &Subject,
    text: Option<&str>,
    adapter: Option<&GpuAdapter>,
    wanted: &dyn Fn(&str) -> bool,
) -> dqrm::Result<Checked> {
    let mut answer = Checked::default();
    let written = text.unwrap_or_default();
    if let Some(variant) = subject.variant.filter(|v| v.subgroup.is_some() && adapter.is_some_and(|a| a.traits.subgroups.is_none())) {
        return Err(dqrm::Error::Device(format!("`{}` needs subgroups, which this browser does not offer", variant.name)));
    }
    let swap = match (subject.swap(text), adapter) {
        (Ok(Some(_)), None) => return Err(dqrm::Error::Device("the CPU runs no shaders; a text needs a browser with WebGPU".into())),
        (Ok(swap), _) => swap,
        (Err(finding), _) => return Ok(Checked { errors: vec![Told::of(&finding, written)], ..answer }),
    };
    if let (Some(swap), Some(adapter)) = (&swap, adapter) {
        for finding in compile(swap, adapter).await? {
            let list = if finding.severity == Severity::Error { &mut answer.errors } else { &mut answer.notes };
            list.push(Told::of(&finding, written));
        }
        if !answer.errors.is_empty() {
            return Ok(answer);
        }
    }
    answer.compiled = true;
    for mut case in ops::cases().into_iter().filter(|case| wanted(&case.name) && subject.runs(case, adapter)) {
        let start = now();
        let expected = compare::reference(&case).await?;
        if let Some(swap) = &swap {
            swap.apply(&mut case.plan);
        }
        let loaded = within(PATIENCE, load(&case, adapter, subject.choice())).await;
        let mut engine = match loaded.unwrap_or_else(|| Err(silence(PATIENCE))) {
            Ok(engine) => engine,
            Err(error) if swap.is_some() => {
                answer.compiled = false;
                answer.errors.push(Told { line: 0, column: 1, message: first_sentence(&error.to_string()) });
                return Ok(answer);
            }
            Err(error) => return Err(error),
        };
        let verdict = within(PATIENCE, compare::check(&case, &expected, &mut *engine)).await;
        let verdict = verdict.unwrap_or_else(|| Err(silence(PATIENCE)));
        let (message, stop) = match &verdict {
            Ok(verdict) => (verdict.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "), false),
            Err(error) => (error.to_string(), true),
        };
        answer.cases.push(Ran { name: case.name, passed: message.is_empty(), message, seconds: now() - start });
        if stop {
            break;
        }
    }
    Ok(answer)
}

/// What the browser's compiler says of the replacements.
async fn compile(swap: &Swap, adapter: &GpuAdapter) -> dqrm::Result<Vec<Finding>> {
    let mut found: Vec<Finding> = Vec::new();
    for kernel in swap.kernels() {
        let Some(replacement) = swap.replacement(kernel) else { continue };
        let messages = within(PATIENCE, adapter.compile(replacement)).await.unwrap_or_else(|| Err(silence(PATIENCE)))?;
        let new: Vec<Finding> = swap.told(replacement, &messages).into_iter().filter(|f| !found.contains(f)).collect();
        found.extend(new);
    }
    Ok(found)
}

/// The first line of what a driver says; below it stands in which of its calls.
fn first_sentence(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_string()
}

async fn load(case: &Case, adapter: Option<&GpuAdapter>, choice: Choice<'_>) -> dqrm::Result<Box<dyn Engine>> {
    load_plan(case.plan.clone(), adapter, choice).await
}

async fn load_plan(plan: dqrm::plan::Plan, adapter: Option<&GpuAdapter>, choice: Choice<'_>) -> dqrm::Result<Box<dyn Engine>> {
    match adapter {
        None => lab::load(None, plan).await,
        Some(adapter) => {
            let schedule = Schedule::new(plan, &adapter.limits)?;
            Ok(Box::new(GpuEngine::load_with(adapter, schedule, choice, false).await?))
        }
    }
}

/// The shape at which a kernel is timed: of a real model, but what a software adapter can do in reasonable time.
fn shape(subject: &Subject, adapter: Option<&GpuAdapter>) -> Option<Case> {
    let kernel = subject.kernels[0];
    if adapter.is_some_and(|a| !a.is_software()) {
        return ops::shapes(kernel.op).iter().map(|make| make()).find(|case| subject.runs(case, adapter));
    }
    let work = |case: &Case| {
        let work = case.work(kernel);
        work.flops.max(work.bytes)
    };
    let cases = ops::cases().into_iter().filter(|case| subject.runs(case, adapter) && describe::runs(case, kernel));
    cases.filter(|case| work(case) <= SOFTWARE_WORK).max_by_key(work)
}

async fn timed(subject: &Subject, text: Option<&str>, seconds: f64, adapter: Option<&GpuAdapter>) -> dqrm::Result<Value> {
    let kernel = subject.kernels[0];
    let swap = subject.swap(text).map_err(|finding| dqrm::Error::Shader(finding.to_string()))?;
    if let Some(swap) = &swap {
        let adapter = adapter.ok_or_else(|| dqrm::Error::Device("the CPU runs no shaders; a text needs a browser with WebGPU".into()))?;
        if let Some(error) = compile(swap, adapter).await?.into_iter().find(|f| f.severity == Severity::Error) {
            return Err(dqrm::Error::Shader(error.to_string()));
        }
    }
    let case = shape(subject, adapter).ok_or_else(|| dqrm::Error::Device(format!("this device can run no shape of `{}`", kernel.name)))?;
    let plan = timing::plan(&case, kernel).ok_or_else(|| dqrm::Error::Plan(format!("`{}` does not run `{}`", case.name, kernel.name)))?;
    let mut contestants = vec![Contestant::new(load_plan(plan.clone(), adapter, Choice::Portable).await?, &case).await?];
    if swap.is_some() || subject.variant.is_some() {
        let mut plan = plan;
        if let Some(swap) = &swap {
            swap.apply(&mut plan);
        }
        contestants.push(Contestant::new(load_plan(plan, adapter, subject.choice()).await?, &case).await?);
    }
    let timings = timing::race(&mut contestants, seconds, &now).await?;
    let shown = |t: &Timing| json!({ "median_ms": 1e3 * t.median, "low_ms": 1e3 * t.low, "high_ms": 1e3 * t.high });
    let work = case.work(kernel);
    Ok(json!({
        "shape": case.name,
        "original": shown(&timings[0]),
        "edited": timings.get(1).map(shown),
        "gbytes_per_s": work.bytes as f64 / timings[0].median / 1e9,
        "gflops": work.flops as f64 / timings[0].median / 1e9,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollster::block_on;

    fn source(name: &str) -> &'static str {
        Subject::named(name).unwrap().kernels[0].source
    }

    /// Checks a text of `concat_forward` on the first adapter; nothing where there is none.
    fn check_text(text: &str) -> Option<Checked> {
        let adapter = block_on(gpu::adapters()).into_iter().next();
        assert!(adapter.is_some() || std::env::var_os("DQRM_REQUIRE_GPU").is_none(), "no adapter");
        let subject = Subject::named("concat_forward").unwrap();
        adapter.map(|a| block_on(checked(&subject, Some(text), Some(&a), &|_| true)).unwrap())
    }

    #[test]
    fn kernels_ops_and_variants_are_found_by_name() {
        assert_eq!(Subject::named("matmul_nt").unwrap().kernels.len(), 1);
        assert!(Subject::named("matmul").unwrap().kernels.len() >= 3);
        let variant = Subject::named("matmul_nt_tiles32").unwrap();
        assert_eq!((variant.kernels[0].name, variant.variant.map(|v| v.name)), ("matmul_nt", Some("matmul_nt_tiles32")));
        assert_eq!(Subject::named("copy").unwrap().kernels.len(), 1);
        assert!(Subject::named("nothing").unwrap_err().contains("`nothing`"));
        assert!(variant.swap(Some("")).unwrap_err().message.contains("is a variant"));
    }

    #[test]
    fn the_list_is_json_with_every_kernel() {
        let list: Vec<Value> = serde_json::from_str(&kernels()).unwrap();
        assert_eq!(list.len(), ops::kernels().len());
        assert!(list.iter().all(|k| k["cases"].as_u64() > Some(0) && k["formula"].as_str().is_some_and(|f| !f.is_empty())));
    }

    #[test]
    fn twins_pass_without_a_gpu() {
        let answer = block_on(checked(&Subject::named("concat").unwrap(), None, None, &|_| true)).unwrap();
        assert!(answer.compiled && answer.cases.len() >= 3 && answer.cases.iter().all(|c| c.passed), "{answer:?}");
        let timed = block_on(timed(&Subject::named("concat_forward").unwrap(), None, 0.01, None)).unwrap();
        assert!(timed["original"]["median_ms"].as_f64() > Some(0.0) && timed["edited"].is_null(), "{timed}");
        let text = block_on(checked(&Subject::named("concat_forward").unwrap(), Some(source("concat_forward")), None, &|_| true));
        assert!(text.unwrap_err().to_string().contains("WebGPU"));
    }

    #[test]
    fn an_edited_text_is_compiled_and_compared() {
        let own = source("concat_forward");
        let Some(answer) = check_text(own) else { return };
        assert!(answer.compiled && answer.cases.iter().all(|c| c.passed), "{answer:?}");
        let wrong = check_text(&own.replace("joined[at] = dense[", "joined[at] = 0.5 * dense[")).unwrap();
        assert!(wrong.compiled && wrong.cases.iter().any(|c| c.message.contains("expected")), "{wrong:?}");
        let line = own.lines().position(|l| l.contains("let b = at / width;")).unwrap() + 1;
        let broken = check_text(&own.replace("let b = at / width;", "let b = at / ;")).unwrap();
        assert_eq!((broken.compiled, broken.errors[0].line, broken.cases.len()), (false, line, 0), "{broken:?}");
        let open = check_text(own.trim_end().trim_end_matches('}')).unwrap();
        assert!(open.errors[0].line <= own.lines().count() && open.errors[0].message.contains("put behind"), "{open:?}");
        let binding = check_text(&own.replace("@binding(2) var<storage, read> pooled", "@binding(7) var<storage, read> pooled")).unwrap();
        assert!(!binding.compiled && !binding.errors[0].message.is_empty(), "{binding:?}");
    }
}
