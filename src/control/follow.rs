//! What begins once a version is published.

use std::sync::Arc;

use crate::model::{ProcessSettings, ServiceName};
use crate::snapshot::Service;

/// Slow work of services: monitors, key sets, pools, migrations. It begins
/// after publishing, in tasks that the implementor owns and stops; nothing
/// here may block or fail. Called on the control runtime, in order.
pub trait AfterPublish: Send {
    /// A version of a service is in force, the first or another one. What
    /// concerns parts that did not change should be kept.
    fn serving(&mut self, service: &Arc<Service>);

    /// A service is no longer served.
    fn gone(&mut self, name: &ServiceName);

    /// Other settings of the process are in force.
    fn settings(&mut self, settings: &Arc<ProcessSettings>);
}

/// Nothing begins.
impl AfterPublish for () {
    fn serving(&mut self, _service: &Arc<Service>) {}

    fn gone(&mut self, _name: &ServiceName) {}

    fn settings(&mut self, _settings: &Arc<ProcessSettings>) {}
}
