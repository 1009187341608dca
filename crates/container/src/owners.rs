//! Whose containers are: to a user there are those that they may touch, and no others.

use std::sync::Arc;

use sampan_model::Owner;

use crate::{ContainerError, ContainerRecord, Containers};

impl Containers {
    /// As [`find`](Self::find), among those that `owner` may touch: others' are not there, nor in the way.
    ///
    /// # Errors
    /// The text means none of them, or several.
    pub fn find_of(&self, owner: &Owner, text: &str) -> Result<Arc<ContainerRecord>, ContainerError> {
        let own = self.inner.find_among(text, |container| owner.may_touch(&container.record().spec.owner))?;
        Ok(own.record())
    }

    /// As [`list`](Self::list), of those that `owner` may touch.
    pub fn list_of(&self, owner: &Owner) -> Vec<Arc<ContainerRecord>> {
        let mut records = self.list();
        records.retain(|record| owner.may_touch(&record.spec.owner));
        records
    }
}
