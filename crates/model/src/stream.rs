//! The stream of an attached process: frames both ways over an upgraded connection.
//!
//! Asked for with `Connection: Upgrade` and `Upgrade: sampan-stream`, answered `101`. A frame is a head like a
//! [`LogFrame`](crate::view::LogFrame)'s, and as many bytes as it says:
//!
//! ```text
//! byte 0       0 standard input, 1 standard output, 2 standard error, 3 control
//! bytes 1–3    zero
//! bytes 4–7    length of the payload, big-endian, at most 65,536
//! bytes 8–15   when it was written, in nanoseconds since 1970, big-endian, signed; 0 from the client
//! ```
//!
//! From the client: standard input (an empty frame is its end) and control. From the daemon: output, then one control
//! frame [`Control::Exited`] and the end; or the end alone, where the connection was cut. With a terminal all output is
//! standard output. A slow reader slows the process down: nothing is dropped.
//!
//! Closing the connection, in one direction or both, is going away: the container and its input go on as they are, and
//! whoever comes next may attach to it. A process of `exec` loses its streams then, and its terminal hangs up. Signals are
//! heard before standard input that the process has not read yet, as far as some 30 frames of it are waiting; beyond that
//! `POST …/kill` is heard.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::view::{ContainerView, ErrorView, Exit, TerminalSize, TimingStep};

/// The protocol's name in `Upgrade`.
pub const PROTOCOL: &str = "sampan-stream";

/// The payload of a control frame, JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// From the client: the terminal has another size.
    Resize(TerminalSize),
    /// From the client: send this signal to the process, a name or a number. (With a terminal keys do that.)
    Signal(String),
    /// From the daemon: the container that was created and attached to. The first frame, before its start. User,
    /// command, environment, labels, mounts and ports are left out where they would not fit into a frame.
    Created(Box<ContainerView>),
    /// From the daemon: its process has been executed.
    Started {
        /// It, on the host.
        pid: u32,
        /// Where the time of its start went (a container's first process only).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        timing: Vec<TimingStep>,
    },
    /// From the daemon: it has ended, and all of its output came before. The last frame.
    Exited(Exit),
    /// From the daemon: it could not be started, or its end not be waited for. The last frame.
    Failed(ErrorView),
}
