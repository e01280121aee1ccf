//! Who makes code of texts, and what the compiler of a device says of a text: naga's findings, or in a browser those of the browser's compiler.

use super::{GpuAdapter, device_error};
use crate::error::Result;
use crate::plan::Kernel;

/// What makes code of texts, in the versions of `Cargo.lock`. Another version makes other code, which may be quicker or slower. A build
/// that leaves the lock aside (`cargo install` without `--locked`, or this crate as a dependency) may have others than are named here.
pub const TRANSLATORS: &str = "wgpu 30.0.1, naga 30.0.1";

/// Something that a compiler says of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The text cannot be used; else it is a warning or a remark.
    pub error: bool,
    /// The line in the whole text, the first is 1; 0 when no place is meant.
    pub line: usize,
    /// The column in characters, the first is 1.
    pub column: usize,
    /// Characters that are meant.
    pub width: usize,
    /// What it says.
    pub text: String,
}

impl GpuAdapter {
    /// Compiles the whole text of a kernel and gives what the compiler says, errors and remarks. Whether the
    /// text fits the kernel's bindings shows when a plan is loaded.
    ///
    /// # Errors
    /// When the device cannot be had.
    pub async fn compile(&self, kernel: &Kernel) -> Result<Vec<Message>> {
        let (device, _) = self.open(wgpu::Features::empty()).await?;
        let text = kernel.wgsl();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let source = wgpu::ShaderSource::Wgsl(text.as_str().into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(kernel.op), source });
        let refused = scope.pop();
        let told = module.get_compilation_info().await.messages;
        let mut messages: Vec<Message> = told.iter().map(|m| message(&text, m)).collect();
        if let Some(error) = refused.await
            && !messages.iter().any(|m| m.error)
        {
            let text = device_error("the driver refused the text")(error).to_string();
            messages.push(Message { error: true, line: 0, column: 1, width: 1, text });
        }
        Ok(messages)
    }
}

fn message(text: &str, told: &wgpu::CompilationMessage) -> Message {
    let place = told.location.and_then(|at| {
        let (start, end) = (at.offset as usize, at.offset as usize + at.length as usize);
        let line = text.get(..start)?.rfind('\n').map_or(0, |end| end + 1);
        Some((at.line_number as usize, text[line..start].chars().count() + 1, text.get(start..end).map_or(1, |t| t.chars().count())))
    });
    let (line, column, width) = place.unwrap_or((0, 1, 1));
    let error = told.message_type == wgpu::CompilationMessageType::Error;
    Message { error, line, column, width: width.max(1), text: told.message.trim().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_translators_are_those_that_are_locked() {
        let lock = include_str!("../../../Cargo.lock");
        let locked = |name: &str| {
            let entry = lock.split("[[package]]").find(|e| e.contains(&format!("\nname = \"{name}\"\n"))).expect("a locked version");
            let version = entry.lines().find_map(|line| line.strip_prefix("version = ")).expect("a version");
            format!("{name} {}", version.trim_matches('"'))
        };
        assert_eq!(TRANSLATORS, ["wgpu", "naga"].map(locked).join(", "));
    }
}
