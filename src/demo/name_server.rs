//! The name server of the demo: it lists the backends that are announced, as hosts of one service (RFC 2782).
//!
//! hickory-proto reads the questions and writes the answers. All of them fit into a datagram, so there is no TCP.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

/// The service that the pool of the demo asks for.
pub(super) const SERVICE: &str = "_http._tcp.web.test.";
/// Where all backends of the service are: on this machine.
const HOST: &str = "host.web.test.";
/// How long an answer is good, in seconds.
const TTL: u32 = 1;
const QUESTION_LEN_MAX: usize = 1232;

/// The ports of the backends that are announced.
#[derive(Clone, Default)]
pub(super) struct Announced(Arc<Mutex<Vec<u16>>>);

impl Announced {
    /// Returns how many are announced with this one.
    pub(super) fn add(&self, port: u16) -> usize {
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ports.push(port);
        ports.len()
    }

    /// Returns how many are announced without this one.
    pub(super) fn remove(&self, port: u16) -> usize {
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ports.retain(|known| *known != port);
        ports.len()
    }

    fn ports(&self) -> Vec<u16> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers questions that come to `socket`. Returns only when the socket fails.
pub(super) async fn serve(socket: UdpSocket, announced: Announced) -> io::Result<()> {
    let mut bytes = [0; QUESTION_LEN_MAX];
    loop {
        let (len, from) = socket.recv_from(&mut bytes).await?;
        let question = match Message::from_vec(&bytes[..len]) {
            Ok(question) if question.metadata.message_type == MessageType::Query => question,
            Ok(_) => continue,
            Err(error) => {
                log::debug!(from:%, error:%; "no question");
                continue;
            }
        };
        let answer = answer(question, &announced.ports()).and_then(|answer| answer.to_vec());
        let sent = match answer.map_err(io::Error::other) {
            Ok(answer) => socket.send_to(&answer, from).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            log::warn!(to:% = from, error:%; "no answer to a question");
        }
    }
}

fn answer(question: Message, ports: &[u16]) -> Result<Message, ProtoError> {
    let Message { metadata, queries, edns, .. } = question;
    let mut answer = Message::response(metadata.id, metadata.op_code);
    answer.metadata.recursion_desired = metadata.recursion_desired;
    answer.metadata.authoritative = true;
    answer.edns = edns.map(|_| Edns::new());
    match &queries[..] {
        _ if metadata.op_code != OpCode::Query => answer.metadata.response_code = ResponseCode::NotImp,
        [query] => {
            let host = Name::from_ascii(HOST)?;
            let at_host = || Record::from_rdata(host.clone(), TTL, RData::A(A(Ipv4Addr::LOCALHOST)));
            let (is_service, is_host) = (*query.name() == Name::from_ascii(SERVICE)?, *query.name() == host);
            if is_service && query.query_type() == RecordType::SRV {
                let record = |port: &u16| {
                    let place = RData::SRV(SRV::new(0, 1, *port, host.clone()));
                    Record::from_rdata(query.name().clone(), TTL, place)
                };
                answer.add_answers(ports.iter().map(record));
                answer.add_additional(at_host());
            } else if is_host && query.query_type() == RecordType::A {
                answer.add_answer(at_host());
            } else if !is_service && !is_host {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
        }
        _ => answer.metadata.response_code = ResponseCode::FormErr,
    }
    answer.add_queries(queries);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::Query;

    use super::*;

    fn asked(name: &str, kind: RecordType) -> Message {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        question
    }

    #[test]
    fn a_service_has_the_ports_that_are_announced() {
        let announced = Announced::default();
        assert_eq!((announced.add(8081), announced.add(8082), announced.remove(8081)), (1, 2, 1));
        let question = asked(SERVICE, RecordType::SRV);
        let id = question.metadata.id;
        let bytes = answer(question, &announced.ports()).unwrap().to_vec().unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!((answer.metadata.id, answer.metadata.response_code), (id, ResponseCode::NoError));
        let ports: Vec<u16> = answer
            .answers
            .iter()
            .map(|record| if let RData::SRV(place) = &record.data { place.port } else { 0 })
            .collect();
        assert_eq!((ports, answer.additionals.len()), (vec![8082], 1));
    }

    #[test]
    fn questions_for_other_names_are_answered_too() {
        for (name, kind, code, answers) in [
            (HOST, RecordType::A, ResponseCode::NoError, 1),
            (HOST, RecordType::AAAA, ResponseCode::NoError, 0),
            (SERVICE, RecordType::A, ResponseCode::NoError, 0),
            ("other.test.", RecordType::A, ResponseCode::NXDomain, 0),
        ] {
            let answer = answer(asked(name, kind), &[8081]).unwrap();
            assert_eq!(
                (answer.metadata.response_code, answer.answers.len()),
                (code, answers),
                "{name} {kind}"
            );
        }
        let mut twice = asked(SERVICE, RecordType::SRV);
        twice.add_query(twice.queries[0].clone());
        assert_eq!(answer(twice, &[]).unwrap().metadata.response_code, ResponseCode::FormErr);
        let mut update = asked(SERVICE, RecordType::SRV);
        update.metadata.op_code = OpCode::Update;
        assert_eq!(answer(update, &[]).unwrap().metadata.response_code, ResponseCode::NotImp);
    }
}
