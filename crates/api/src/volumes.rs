//! Actions on volumes.

use sampan_container::{VolumeUsers, volumes_of};
use sampan_model::view::{VolumeCreate, VolumeView};
use sampan_model::{Label, Owner};
use sampan_service::ServiceRecord;

use crate::{ApiError, Caller, Core, Outcome};

/// What is asked of volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeAction {
    /// Make one.
    Create(VolumeCreate),
    /// All of them.
    List,
    /// One of them.
    Show(Label),
    /// Remove one.
    Remove(Label),
    /// Remove those that nothing uses.
    Prune,
}

impl Core {
    /// Carries out what is asked by `owner`.
    pub(crate) async fn volumes(&self, owner: Owner, action: VolumeAction) -> Result<Outcome, ApiError> {
        let containers = &self.containers;
        let users = self.services_of_volumes()?;
        Ok(match action {
            VolumeAction::Create(asked) => Outcome::Volume(containers.create_volume(asked, owner).await?),
            VolumeAction::List => Outcome::Volumes(containers.volumes(owner, users).await?),
            VolumeAction::Show(name) => Outcome::Volume(containers.volume(name, owner, users).await?),
            VolumeAction::Remove(name) => {
                containers.remove_volume(name, owner, users).await?;
                Outcome::Done
            }
            VolumeAction::Prune => Outcome::VolumesPruned(containers.prune_volumes(owner, users).await?),
        })
    }

    /// The volume of this name that the caller may see.
    pub(crate) async fn own_volume(&self, caller: &Caller, name: &str) -> Option<VolumeView> {
        let name = Label::parse(name).ok()?;
        match self.volumes(caller.owner(), VolumeAction::Show(name)).await {
            Ok(Outcome::Volume(volume)) => Some(volume),
            _ => None,
        }
    }

    /// Which services intend each volume, be it that no replica is there.
    fn services_of_volumes(&self) -> Result<VolumeUsers, ApiError> {
        let records = self.records.list::<ServiceRecord>(SERVICES);
        let records = records.map_err(|error| ApiError::from(sampan_container::ContainerError::from(error)))?;
        let mut users = VolumeUsers::new();
        for (_, record) in records {
            let (spec, owner) = (record.value.spec, record.value.owner);
            for volume in volumes_of(&spec.mounts) {
                users.entry(volume.clone()).or_default().push((spec.name.to_string(), owner.clone()));
            }
        }
        Ok(users)
    }
}

const SERVICES: &str = "default/service/";
