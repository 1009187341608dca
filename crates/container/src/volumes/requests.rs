//! What is asked of volumes from outside: with who uses each.

use std::collections::HashMap;

use sampan_model::view::{Pruned, VolumeCreate, VolumeView};
use sampan_model::{Label, Mount, MountSource, Owner};

use super::VolumeRecord;
use crate::containers::Inner;
use crate::{ContainerError, Containers, VolumeError};

/// The services that have each volume, which are not known here, and whose they are.
pub type VolumeUsers = HashMap<Label, Vec<(String, Owner)>>;

/// The volumes among these mounts.
pub fn volumes_of(mounts: &[Mount]) -> impl Iterator<Item = &Label> {
    mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume { name } => Some(name),
        _ => None,
    })
}

impl Containers {
    /// Makes a volume; one of that name that is the owner's already is answered as it is.
    ///
    /// # Errors
    /// The name is somebody else's.
    pub async fn create_volume(&self, asked: VolumeCreate, owner: Owner) -> Result<VolumeView, ContainerError> {
        self.blocking("making a volume", move |inner| {
            let VolumeCreate { name, labels } = asked;
            let record = inner.foundation.volumes.create(&name, labels, &owner)?;
            Ok(inner.volume_view(&name, record, &VolumeUsers::new()))
        })
        .await
    }

    /// The volumes that `owner` may see, by name.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn volumes(&self, owner: Owner, services: VolumeUsers) -> Result<Vec<VolumeView>, ContainerError> {
        self.blocking("listing volumes", move |inner| {
            let found = inner.foundation.volumes.list(&owner)?;
            Ok(found.into_iter().map(|(name, record)| inner.volume_view(&name, record, &services)).collect())
        })
        .await
    }

    /// One volume.
    ///
    /// # Errors
    /// There is none that `owner` may see.
    pub async fn volume(&self, name: Label, owner: Owner, services: VolumeUsers) -> Result<VolumeView, ContainerError> {
        self.blocking("reading a volume", move |inner| {
            let record = inner.foundation.volumes.get(&name, &owner)?;
            Ok(inner.volume_view(&name, record, &services))
        })
        .await
    }

    /// Removes a volume that nothing uses, and what is in it.
    ///
    /// # Errors
    /// There is none that `owner` may see, or it is in use.
    pub async fn remove_volume(&self, name: Label, owner: Owner, services: VolumeUsers) -> Result<(), ContainerError> {
        self.blocking("removing a volume", move |inner| {
            inner.foundation.volumes.remove(&name, &owner, |whose| inner.volume_users(&name, whose, &services))?;
            Ok(())
        })
        .await
    }

    /// Removes every volume of `owner`'s that nothing uses.
    ///
    /// # Errors
    /// One could not be removed; those before it are.
    pub async fn prune_volumes(&self, owner: Owner, services: VolumeUsers) -> Result<Pruned, ContainerError> {
        self.blocking("removing volumes", move |inner| {
            let mut pruned = Pruned::default();
            let own = inner.foundation.volumes.list(&owner)?.into_iter();
            // root's prune is not for what others keep
            for (name, _) in own.filter(|(_, record)| record.owner.uid == owner.uid) {
                match inner
                    .foundation
                    .volumes
                    .remove(&name, &owner, |whose| inner.volume_users(&name, whose, &services))
                {
                    Ok(size) => {
                        pruned.removed.push(name.to_string());
                        pruned.freed_bytes += size;
                    }
                    Err(VolumeError::InUse { .. } | VolumeError::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(pruned)
        })
        .await
    }
}

impl Inner {
    fn volume_view(&self, name: &Label, record: VolumeRecord, services: &VolumeUsers) -> VolumeView {
        let users = self.volume_users(name, &record.owner, services);
        self.foundation.volumes.view(name, record, users)
    }

    /// The names of the containers and services that have a volume. A replica goes by its service's.
    fn volume_users(&self, name: &Label, whose: &Owner, services: &VolumeUsers) -> Vec<String> {
        let services = services.get(name).into_iter().flatten();
        // who only says the name of another's volume has nothing of it
        let mut users: Vec<String> =
            services.filter(|(_, owner)| owner.may_touch(whose)).map(|(name, _)| name.clone()).collect();
        for container in self.seen() {
            let spec = &container.record().spec;
            if spec.owner.may_touch(whose) && volumes_of(&spec.mounts).any(|volume| volume == name) {
                let service = spec.service.as_ref().map(|service| service.name.to_string());
                users.push(service.unwrap_or_else(|| spec.name.to_string()));
            }
        }
        users.sort();
        users.dedup();
        users
    }
}
