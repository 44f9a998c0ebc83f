//! A certificate authority for tests.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::{Certificates, ClientAuth, TlsFiles};

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate in PEM.
    pub certificate: String,
}

/// A certificate and its key in PEM.
pub(crate) struct CertificateWithKey {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// The root certificates of a client that trusts only this authority.
    pub fn roots(&self) -> Option<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let pem = self.certificate.as_bytes();
        roots.add(CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
        Some(roots)
    }

    /// Signs a certificate for this name or address.
    pub fn signs(&self, name: &str) -> CertificateWithKey {
        self.signs_in(name, 1975..4096)
    }

    /// Signs a certificate that is valid from the first day of one year to that of another.
    pub fn signs_in(&self, name: &str, years: std::ops::Range<i32>) -> CertificateWithKey {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        // Otherwise the authority, whose name is the default as well, would seem to be this.
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        CertificateWithKey { certificate, key: key.serialize_pem() }
    }
}

impl CertificateWithKey {
    /// Writes certificate and key into a folder, as `server.pem` and `server.key`.
    pub fn write(&self, folder: &Path) -> TlsFiles {
        let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
        fs::write(&certificate, &self.certificate).unwrap();
        fs::write(&key, &self.key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        TlsFiles { certificate, key, clients: ClientAuth::Unrequested }
    }

    pub fn loaded(&self) -> Certificates {
        let folder = tempfile::tempdir().unwrap();
        Certificates::load(self.write(folder.path())).unwrap()
    }

    /// Loads the certificate for a server without ALPN.
    pub fn loaded_without_protocols(&self) -> Certificates {
        self.loaded().without_protocols()
    }
}
