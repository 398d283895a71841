//! Joining by ticket and renewing, with a node that answers as a real one would.

use std::sync::{Arc, Mutex};

use super::{join::join, join::renew, *};

/// A node with a ticket book, which answers questions as long as it lives.
struct Issuer {
    identity: Identity,
    endpoint: Endpoint,
    book: Arc<Mutex<TicketBook>>,
    names: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    fn start(identity: &Identity) -> Self {
        let issuer = Issuer { identity: identity.clone(), endpoint: endpoint(identity), book: Arc::default(), names: Arc::default() };
        let (endpoint, identity) = (issuer.endpoint.clone(), identity.clone());
        let (book, names) = (issuer.book.clone(), issuer.names.clone());
        tokio::spawn(async move {
            let mut links = Vec::new();
            while let Some(incoming) = endpoint.accept().await {
                match incoming {
                    Incoming::Join(request) => {
                        names.lock().unwrap().push(request.name.clone());
                        let verdict = decide(&identity, &book, &request);
                        match verdict {
                            Ok(certificates) => assert!(request.grant(certificates).await),
                            Err(reason) => request.refuse(&reason).await,
                        }
                    }
                    Incoming::Mesh(link) => links.push(link),
                    Incoming::Client(_) => {}
                }
            }
        });
        issuer
    }

    fn ticket(&self, role: Role, lifetime_seconds: u64) -> Ticket {
        let mut random = [0; 24];
        getrandom::fill(&mut random).unwrap();
        let addresses = vec!["127.0.0.1:1".into(), self.endpoint.local_address().unwrap().to_string()];
        self.book.lock().unwrap().issue(now(), lifetime_seconds, self.identity.mesh(), role, addresses, random).unwrap()
    }

    async fn mesh_link(&self, node: &Identity) -> NodeId {
        endpoint(node).connect_mesh(self.endpoint.local_address().unwrap(), None).await.unwrap().peer()
    }
}

fn decide(identity: &Identity, book: &Mutex<TicketBook>, request: &JoinRequest) -> Result<Certificates, String> {
    let authority = identity.authority().ok_or("this node is no authority")?;
    let role = match &request.ask {
        Ask::Ticket { id, secret } => {
            book.lock().unwrap().redeem(now(), *id, secret, request.node_key.node()).map_err(|error| error.to_string())?
        }
        Ask::Renewal { .. } => Role::Member,
    };
    let key = request.authority_key.filter(|_| role == Role::Authority);
    authority.certify(now(), &request.node_key, key.as_ref()).map_err(|error| error.to_string())
}

fn newcomer() -> ClientEndpoint {
    // The first address of every ticket here is dead: a short wait for it.
    let options = Options { handshake_timeout: Duration::from_millis(500), ..Options::default() };
    ClientEndpoint::bind(options).unwrap()
}

#[tokio::test]
async fn a_ticket_makes_a_member() {
    let issuer = Issuer::start(&founder());
    let ticket: Ticket = issuer.ticket(Role::Member, 600).to_string().parse().unwrap();
    let applicant = Applicant::new(ticket.role).unwrap();
    let identity = join(&newcomer(), &ticket, &applicant, "jfk").await.unwrap();
    assert_eq!((identity.mesh(), identity.node()), (issuer.identity.mesh(), applicant.node().unwrap()));
    assert!(identity.authority().is_none());
    assert_eq!(*issuer.names.lock().unwrap(), ["jfk"]);
    assert_eq!(issuer.mesh_link(&identity).await, issuer.identity.node());
}

#[tokio::test]
async fn an_authority_made_by_ticket_goes_on_without_the_founder() {
    let first = Issuer::start(&founder());
    let ticket = first.ticket(Role::Authority, 600);
    let second = join(&newcomer(), &ticket, &Applicant::new(Role::Authority).unwrap(), "second").await.unwrap();
    let mesh = first.identity.mesh();
    first.endpoint.close(CloseCode::Done, "deleted");
    drop(first);

    let second = Issuer::start(&second);
    let ticket = second.ticket(Role::Authority, 600);
    let third = join(&newcomer(), &ticket, &Applicant::new(Role::Authority).unwrap(), "third").await.unwrap();
    let ticket = second.ticket(Role::Member, 600);
    let fourth = join(&newcomer(), &ticket, &Applicant::new(Role::Member).unwrap(), "fourth").await.unwrap();
    assert_eq!((third.mesh(), fourth.mesh()), (mesh, mesh));
    assert_eq!(second.mesh_link(&third).await, second.identity.node());
    let third = Issuer::start(&third);
    assert_eq!(third.mesh_link(&fourth).await, third.identity.node());

    // A node that the third makes, three steps from a root that is gone, is renewed by the second.
    let ticket = third.ticket(Role::Member, 600);
    let fifth = join(&newcomer(), &ticket, &Applicant::new(Role::Member).unwrap(), "fifth").await.unwrap();
    let own = endpoint(&fifth);
    let renewed = renew(&own, second.endpoint.local_address().unwrap(), "fifth").await.unwrap();
    assert_eq!(renewed.node(), fifth.node());
    assert_ne!(renewed.chain(), fifth.chain());
    own.set_identity(&renewed).unwrap();
    assert!(own.connect_mesh(third.endpoint.local_address().unwrap(), None).await.is_ok());
}

#[tokio::test]
async fn a_used_expired_false_or_foreign_ticket_is_refused_in_clear_words() {
    let issuer = Issuer::start(&founder());
    let refusal = async |ticket: &Ticket, applicant: &Applicant| match join(&newcomer(), ticket, applicant, "x").await {
        Err(JoinError::Refused(reason)) => reason,
        other => panic!("expected a refusal, not {other:?}"),
    };
    let ticket = issuer.ticket(Role::Member, 600);
    let (one, other) = (Applicant::new(Role::Member).unwrap(), Applicant::new(Role::Member).unwrap());
    let wrong = Ticket { secret: Secret([0; 16]), ..ticket.clone() };
    assert!(refusal(&wrong, &one).await.contains("secret is wrong"));
    let unknown = Ticket { id: TicketId(1), ..ticket.clone() };
    assert!(refusal(&unknown, &one).await.contains("knows no such ticket"));
    assert!(join(&newcomer(), &ticket, &one, "x").await.is_ok());
    assert!(join(&newcomer(), &ticket, &one, "x").await.is_ok(), "the same applicant again: the answer may have got lost");
    assert!(refusal(&ticket, &other).await.contains("already been used"));
    assert!(refusal(&issuer.ticket(Role::Member, 0), &other).await.contains("expired"));

    let mesh = founder().mesh();
    let foreign = Ticket { mesh, ..issuer.ticket(Role::Member, 600) };
    match join(&newcomer(), &foreign, &other, "x").await {
        Err(JoinError::Connect(ConnectError::Trust(TrustError::WrongMesh { expected }))) => assert_eq!(expected, mesh),
        other => panic!("a secret was shown to another mesh: {other:?}"),
    }
}

#[tokio::test]
async fn a_member_ticket_makes_no_authority() {
    let issuer = Issuer::start(&founder());
    let ticket = issuer.ticket(Role::Member, 600);
    let greedy = Applicant::new(Role::Authority).unwrap();
    let error = join(&newcomer(), &ticket, &greedy, "x").await.unwrap_err();
    assert!(error.to_string().contains("no authority certificate"), "{error}");
}

#[tokio::test]
async fn a_node_that_is_no_authority_says_so() {
    let first = founder();
    let issuer = Issuer::start(&member(&first));
    let own = endpoint(&member(&first));
    let error = renew(&own, issuer.endpoint.local_address().unwrap(), "x").await.unwrap_err();
    assert_eq!(error.to_string(), "this node is no authority");
}

#[tokio::test]
async fn a_question_without_ticket_certificate_or_proof_is_refused() {
    let issuer = Issuer::start(&founder());
    let address = issuer.endpoint.local_address().unwrap();
    for garbage in [b"".as_slice(), b"\xff\xff\xff", &[0x84; 3000], &[0; 100_000]] {
        let connection = newcomer().connect_join(address, issuer.identity.mesh()).await.unwrap();
        let (mut question, mut answer) = connection.open_bi().await.unwrap();
        // Above the limit the stream is refused while it is still written.
        let _ = question.write_all(garbage).await;
        let _ = question.finish();
        let answered = timeout(PATIENCE, answer.read_to_end(10_000)).await.unwrap();
        let words = answered.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(words.as_ref().map_or(true, |words| words.contains("cannot be read")), "{words:?}");
    }
    assert!(issuer.names.lock().unwrap().is_empty(), "none of it reached the node");
    // A renewal without a certificate.
    let anonymous = newcomer().connect_join(address, issuer.identity.mesh()).await.unwrap();
    let error = super::join::ask_for_test(&anonymous, &SecretKey::generate().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("neither a ticket nor a certificate"), "{error}");
    // A renewal for another key than the certificate's.
    let own = endpoint(&member(&issuer.identity));
    let connection = own.connect_join(address).await.unwrap();
    let error = super::join::ask_for_test(&connection, &SecretKey::generate().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("only be renewed for the key"), "{error}");
}
