//! Who is let in and who is not, and what both sides are told.

use super::*;

async fn refused_by_peer(dialler: &Endpoint, acceptor: &Endpoint) -> String {
    welcome_all(acceptor);
    match dialler.connect_mesh(acceptor.local_address().unwrap(), None).await {
        Err(ConnectError::Refused(reason)) => reason,
        other => panic!("expected a refusal, not {other:?}"),
    }
}

#[tokio::test]
async fn another_mesh_is_refused_by_either_side() {
    let (ours, theirs) = (founder(), founder());
    let (dialler, acceptor) = (endpoint(&ours), endpoint(&theirs));
    welcome_all(&acceptor);
    let refused = dialler.connect_mesh(acceptor.local_address().unwrap(), None).await.unwrap_err();
    assert_eq!(refused, ConnectError::Trust(TrustError::WrongMesh { expected: ours.mesh() }));

    // A dialler that would take anybody shows that the accepting side looks too.
    let lenient = super::tls::Trust::of_mesh(theirs.mesh());
    let (config, _) = super::tls::client_config(super::tls::ALPN_MESH, Some(&ours), lenient, None).unwrap();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let raw = quinn::Endpoint::client(loopback()).unwrap();
    let connecting =
        raw.connect_with(quinn::ClientConfig::new(std::sync::Arc::new(crypto)), acceptor.local_address().unwrap(), "x").unwrap();
    let error = match connecting.await {
        Ok(connection) => timeout(PATIENCE, connection.closed()).await.unwrap(),
        Err(error) => error,
    };
    assert!(error.to_string().contains("wrong mesh"), "{error}");
    assert_eq!(acceptor.handshakes().accepted, 0);
}

#[tokio::test]
async fn another_node_than_the_expected_is_refused() {
    let first = founder();
    let (second, third) = (member(&first), member(&first));
    let (dialler, acceptor) = (endpoint(&second), endpoint(&first));
    welcome_all(&acceptor);
    let refused = dialler.connect_mesh(acceptor.local_address().unwrap(), Some(third.node())).await.unwrap_err();
    assert_eq!(refused, ConnectError::Trust(TrustError::WrongNode { expected: third.node(), found: first.node() }));
}

#[tokio::test]
async fn a_revoked_node_is_refused_by_either_side() {
    let first = founder();
    let second = member(&first);
    let revocations = Revocations::default();
    let (dialler, acceptor) = (endpoint(&second), endpoint_with(&first, revocations.clone()));
    // Before the revocation it is let in, and a later revocation needs no new endpoint.
    let accepted = tokio::join!(dialler.connect_mesh(acceptor.local_address().unwrap(), None), next_mesh(&acceptor));
    assert_eq!(accepted.0.unwrap().peer(), first.node());
    revocations.update(|revoked| {
        revoked.nodes.insert(second.node(), "revoked by A: it was stolen".into());
    });
    assert!(revocations.is_revoked(second.node()));
    welcome_all(&acceptor);
    let address = acceptor.local_address().unwrap();
    let refused = dialler.connect_mesh(address, None).await.unwrap_err();
    assert_eq!(refused, ConnectError::Revoked("revoked by A: it was stolen".into()), "it is told by a node that has proved who it is");
    let renewed = super::join::renew(&dialler, address, "second").await;
    assert!(matches!(&renewed, Err(error) if error.to_string().contains("stolen")), "{renewed:?}");

    let refused = acceptor.connect_mesh(dialler.local_address().unwrap(), None).await.unwrap_err();
    assert_eq!(refused, ConnectError::Trust(TrustError::Revoked(second.node())));
}

#[tokio::test]
async fn a_mesh_link_without_a_certificate_is_refused() {
    let first = founder();
    let acceptor = endpoint(&first);
    welcome_all(&acceptor);
    let trust = super::tls::Trust::of_mesh(first.mesh());
    let (config, _) = super::tls::client_config(super::tls::ALPN_MESH, None, trust, None).unwrap();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let raw = quinn::Endpoint::client(loopback()).unwrap();
    let connecting =
        raw.connect_with(quinn::ClientConfig::new(std::sync::Arc::new(crypto)), acceptor.local_address().unwrap(), "x").unwrap();
    let ended = timeout(PATIENCE, connecting.await.unwrap().closed()).await.unwrap();
    let Closed::Peer { code, reason } = Closed::from_error(&ended, None) else { panic!("{ended}") };
    assert_eq!(code, Some(CloseCode::NoCertificate));
    assert!(reason.contains("join the mesh with a ticket"), "{reason}");
    assert_eq!(acceptor.handshakes().failed, 1);
}

#[tokio::test]
async fn a_client_pins_the_mesh_and_needs_no_certificate() {
    let first = founder();
    let acceptor = endpoint(&first);
    let client = ClientEndpoint::bind(Options::default()).unwrap();
    let address = acceptor.local_address().unwrap();
    let (connected, arrived) = tokio::join!(client.connect_client(address, first.mesh()), acceptor.accept());
    let (connected, Some(Incoming::Client(arrived))) = (connected.unwrap(), arrived) else { panic!("not a client") };
    let (mut ask, mut answer) = connected.open_bi().await.unwrap();
    ask.write_all(b"who?").await.unwrap();
    ask.finish().unwrap();
    let (mut reply, mut asked) = arrived.accept_bi().await.unwrap();
    assert_eq!(asked.read_to_end(10).await.unwrap(), b"who?");
    reply.write_all(b"me").await.unwrap();
    reply.finish().unwrap();
    assert_eq!(answer.read_to_end(10).await.unwrap(), b"me");

    let other = founder().mesh();
    let refused = client.connect_client(address, other).await.unwrap_err();
    assert_eq!(refused, ConnectError::Trust(TrustError::WrongMesh { expected: other }));
}

#[tokio::test]
async fn an_expired_certificate_is_accepted_within_its_grace_and_not_beyond() {
    let first = founder();
    let acceptor = endpoint(&first);
    welcome_all(&acceptor);
    let address = acceptor.local_address().unwrap();
    let late = certified_for(&first, Role::Member, now() - 400 * DAY, now() - 300 * DAY);
    assert!(endpoint(&late).connect_mesh(address, None).await.is_ok());
    let too_late = certified_for(&first, Role::Member, now() - 800 * DAY, now() - 400 * DAY);
    let dialler = endpoint(&too_late);
    let reason = refused_by_peer(&dialler, &acceptor).await;
    assert!(reason.contains("expired 400 days ago") && reason.contains("ticket"), "{reason}");
    let refused = acceptor.connect_mesh(dialler.local_address().unwrap(), None).await.unwrap_err();
    assert_eq!(refused, ConnectError::Trust(TrustError::Expired { node: too_late.node(), days: 400 }));
}

#[tokio::test]
async fn a_certificate_from_the_future_is_accepted() {
    let first = founder();
    let acceptor = endpoint(&first);
    welcome_all(&acceptor);
    let early = certified_for(&first, Role::Member, now() + 5000 * DAY, now() + 5365 * DAY);
    assert!(endpoint(&early).connect_mesh(acceptor.local_address().unwrap(), None).await.is_ok());
}

#[tokio::test]
async fn a_chain_of_authorities_works_without_the_root() {
    let second = certified(&founder(), Role::Authority);
    let third = certified(&second, Role::Authority);
    let fourth = member(&third);
    let (a, b) = (endpoint(&fourth), endpoint(&second));
    let (here, there) = tokio::join!(a.connect_mesh(b.local_address().unwrap(), None), next_mesh(&b));
    assert_eq!((here.unwrap().peer(), there.peer()), (second.node(), fourth.node()));
}

#[test]
fn a_chain_is_as_long_as_can_be_verified_and_no_longer() {
    let mut issuer = founder();
    for depth in 1..=super::authority::CHAIN_DEPTH_MAX {
        issuer = certified(&issuer, Role::Authority);
        assert_eq!(issuer.chain().certificates().len(), depth + 1);
        assert_eq!(member(&issuer).mesh(), issuer.mesh());
    }
    let applicant = Applicant::new(Role::Authority).unwrap();
    let (node, key) = (applicant.key.public().unwrap(), applicant.authority.unwrap().public().unwrap());
    let refused = issuer.authority().unwrap().certify(now(), &node, Some(&key)).unwrap_err();
    assert!(matches!(refused, IdentityError::TooDeep), "{refused}");
}

#[test]
fn a_revoked_authority_bars_strangers_and_keeps_the_known() {
    let first = founder();
    let second = certified(&first, Role::Authority);
    let (known, stranger) = (member(&second), member(&second));
    let sub_authority = certified(&second, Role::Authority);
    let below = member(&sub_authority);
    let second_authority = second.authority().unwrap().id().unwrap();
    let sub_authority = sub_authority.authority().unwrap().id().unwrap();
    let revocations =
        Revocations::new(Revoked { authorities: [second_authority].into(), known_nodes: [known.node()].into(), ..Revoked::default() });
    let check = |identity: &Identity| {
        let chain = identity.chain().certificates();
        super::tls::Trust::new(first.mesh(), revocations.clone()).check(&chain[0], &chain[1..], now())
    };
    assert_eq!(check(&known), Ok(known.node()));
    assert_eq!(check(&first), Ok(first.node()), "another authority's are not touched");
    assert_eq!(check(&stranger), Err(TrustError::IssuerRevoked { authority: second_authority, node: stranger.node() }));
    assert_eq!(check(&below), Err(TrustError::IssuerRevoked { authority: second_authority, node: below.node() }));
    revocations.update(|revoked| {
        revoked.known_authorities.insert(sub_authority);
    });
    assert_eq!(check(&below), Ok(below.node()), "a sub-authority that was known before goes on inviting");
    // The founder's authority is the root itself.
    revocations.update(|revoked| {
        revoked.authorities.insert(first.authority().unwrap().id().unwrap());
        revoked.known_nodes.insert(first.node());
    });
    assert_eq!(check(&first), Ok(first.node()));
    assert!(matches!(check(&known), Err(TrustError::IssuerRevoked { .. })), "its issuer is not known as an authority");
}

#[test]
fn a_certificate_by_a_false_authority_of_the_same_name_is_refused() {
    let (ours, theirs) = (founder(), founder());
    let stolen_root = ours.chain().certificates().pop().unwrap();
    let chain = member(&theirs).chain().certificates();
    let trust = super::tls::Trust::of_mesh(ours.mesh());
    assert_eq!(trust.check(&chain[0], std::slice::from_ref(&stolen_root), now()), Err(TrustError::WrongMesh { expected: ours.mesh() }));
    // A member's certificate is no authority's.
    let member = member(&ours);
    let mut chain = member.chain().certificates();
    chain[0] = rcgen_leaf_signed_by_member(&member);
    let refused = trust.check(&chain[0], &[member.chain().certificates()[0].clone(), stolen_root], now());
    assert!(matches!(refused, Err(TrustError::NotMangrove(_))), "{refused:?}");
}

/// What a member without the role would make if it signed a certificate with its node key.
fn rcgen_leaf_signed_by_member(member: &Identity) -> rustls::pki_types::CertificateDer<'static> {
    let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
        &rustls::pki_types::PrivatePkcs8KeyDer::from(member.key().pkcs8()),
        &rcgen::PKCS_ED25519,
    )
    .unwrap();
    let mut issuer = rcgen::CertificateParams::default();
    issuer.distinguished_name = rcgen::DistinguishedName::new();
    issuer.distinguished_name.push(rcgen::DnType::CommonName, format!("mangrove node {}", member.node().short()));
    let params = rcgen::CertificateParams::new(vec![super::authority::mesh_name(member.mesh())]).unwrap();
    let leaf = SecretKey::generate().unwrap().public().unwrap();
    params.signed_by(&leaf, &rcgen::Issuer::new(issuer, key)).unwrap().der().clone()
}

#[test]
fn garbage_is_no_certificate() {
    let garbage = rustls::pki_types::CertificateDer::from(vec![0x30, 0x82, 1, 2, 3]);
    let trust = super::tls::Trust::of_mesh(founder().mesh());
    assert!(matches!(trust.check(&garbage, &[], now()), Err(TrustError::NotMangrove(_))));
    let web = rcgen::generate_simple_self_signed(vec!["example.org".into()]).unwrap();
    assert!(matches!(trust.check(web.cert.der(), &[], now()), Err(TrustError::NotMangrove(_))));
}

#[test]
fn an_identity_survives_the_vault_and_damage_is_found() {
    let first = founder();
    let second = certified(&first, Role::Authority);
    for identity in [first, second] {
        let bytes = identity.to_bytes();
        assert_eq!(Identity::from_bytes(&bytes).unwrap(), identity);
        assert!(identity.expires() > now());
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            assert!(matches!(Identity::from_bytes(&damaged), Err(IdentityError::Damaged)), "bit {position}");
        }
        assert!(matches!(Identity::from_bytes(&bytes[..bytes.len() / 2]), Err(IdentityError::Damaged)));
        assert!(matches!(Identity::from_bytes(b""), Err(IdentityError::Damaged)));
    }
}

#[test]
fn certificates_for_another_key_mesh_or_role_are_not_taken() {
    let (ours, theirs) = (founder(), founder());
    let authority = ours.authority().unwrap();
    let (applicant, other) = (Applicant::new(Role::Member).unwrap(), Applicant::new(Role::Authority).unwrap());
    let key = applicant.key.public().unwrap();
    let certificates = authority.certify(now(), &key, None).unwrap();
    let refused = |applicant: &Applicant, mesh, certificates: &Certificates| {
        applicant.clone().admitted(mesh, certificates.clone()).unwrap_err().to_string()
    };
    assert!(refused(&other, ours.mesh(), &certificates).contains("no authority certificate"));
    assert!(refused(&applicant, theirs.mesh(), &certificates).contains("wrong mesh"));
    let for_other = authority.certify(now(), &other.key.public().unwrap(), None).unwrap();
    assert!(refused(&applicant, ours.mesh(), &for_other).contains("another key"));
    let stranger = SecretKey::generate().unwrap().public().unwrap();
    let wrong_authority = authority.certify(now(), &other.key.public().unwrap(), Some(&stranger)).unwrap();
    assert!(refused(&other, ours.mesh(), &wrong_authority).contains("another key"));
    assert!(ours.renewed(certificates).unwrap_err().to_string().contains("another key"));
}

#[test]
fn renewal_is_due_in_the_last_third() {
    let identity = founder();
    assert!(!identity.renewal_due(now()));
    assert!(identity.renewal_due(identity.expires() - 100 * DAY));
    assert!(identity.renewal_due(identity.expires() + DAY));
    let later = identity.renewed_by_itself(now() + 300 * DAY).unwrap().unwrap();
    assert_eq!(later.node(), identity.node());
    assert!(later.expires() > identity.expires());
    assert!(member(&identity).renewed_by_itself(now()).unwrap().is_none());
}

#[tokio::test]
async fn a_new_identity_is_shown_to_later_connections() {
    let first = founder();
    let acceptor = endpoint(&first);
    welcome_all(&acceptor);
    let expired = certified_for(&first, Role::Member, now() - 800 * DAY, now() - 400 * DAY);
    let node = endpoint(&expired);
    let address = acceptor.local_address().unwrap();
    assert!(node.connect_mesh(address, None).await.is_err());
    let certificates = first.authority().unwrap().certify(now(), &expired.public_key(), None).unwrap();
    node.set_identity(&expired.renewed(certificates).unwrap()).unwrap();
    assert!(node.connect_mesh(address, None).await.is_ok(), "as a dialler");
    assert!(acceptor.connect_mesh(node.local_address().unwrap(), Some(expired.node())).await.is_ok(), "and as an acceptor");
}
