//! The demo of discovery: backends start and stop by themselves and are announced in DNS, and clients show that none of
//! their requests fails.
//!
//! A backend that stops is no longer announced first, and stops once no request has come to it for a while. All of it
//! runs on a thread of its own.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::name_server::{self, Announced, SERVICE};
use super::schedule::{Change, FEWEST, PLACES, Schedule};
use super::visitors::{self, Visits};
use super::{Ports, Token, refused, routes};
const PERIOD: Duration = Duration::from_secs(2);
/// Time without a request after which a backend that is no longer announced stops.
const QUIET: Duration = Duration::from_secs(1);
/// A backend that is no longer announced stops after this time in any case.
const LEAVING_MAX: Duration = Duration::from_secs(10);
/// Its last answers are given within this time.
const STOPPING_MAX: Duration = Duration::from_secs(5);

impl Ports {
    /// Returns the configuration of the demo of discovery: the pool `web` with a source.
    pub(crate) fn discovery_config(&self) -> String {
        let (balancer, name_server) = (self.balancer, self.name_server);
        format!(
            "[[listener]]\nbind = \"127.0.0.1:{balancer}\"\n\
             [[pool]]\nname = \"web\"\n\
             health = {{ type = \"http\", path = \"/health\", interval = \"1s\", timeout = \"1s\" }}\n\
             [[pool.discover]]\ntype = \"dns\"\nname = \"{SERVICE}\"\nrecord = \"srv\"\n\
             resolver = [\"127.0.0.1:{name_server}\"]\ninterval = \"500ms\"\nobsolete = 0\n"
        )
    }
}

/// Backends, their name server and their clients, bound and not yet running.
pub(crate) struct Discovery {
    runtime: Runtime,
    name_server: UdpSocket,
    first: Vec<TcpListener>,
    ports: [u16; PLACES],
    balancer: SocketAddr,
    visits: Arc<Visits>,
}

impl Discovery {
    /// Takes the port of the name server and those of the first backends. Fails if the port of any later one is taken.
    pub(crate) fn bind(ports: &Ports) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.name_server));
        let (name_server, mut first) = runtime.block_on(async {
            let name_server = UdpSocket::bind(at).await.map_err(|error| refused(at, error))?;
            let mut all = Vec::with_capacity(PLACES);
            for port in ports.discovered {
                all.push(listen(port).await?);
            }
            Ok::<_, io::Error>((name_server, all))
        })?;
        first.truncate(FEWEST);
        let balancer = (Ipv4Addr::LOCALHOST, ports.balancer).into();
        let visits = Arc::new(Visits::until_a_signal()?);
        Ok(Self { runtime, name_server, first, ports: ports.discovered, balancer, visits })
    }

    /// Returns the outcomes of the requests, now and later.
    pub(crate) fn visits(&self) -> Arc<Visits> {
        Arc::clone(&self.visits)
    }

    /// Prints commands to try, then one line for each change as long as the process runs.
    pub(crate) fn start(
        self,
        ports: &Ports,
        token: &Token,
        mut to: impl Write + Send + 'static,
    ) -> io::Result<()> {
        print_what_to_try(ports, token, &mut to)?;
        thread::Builder::new().name("demo-discovery".into()).spawn(move || {
            if let Err(error) = self.run(&mut to) {
                log::error!(error:%; "the demo has stopped: its backends have gone");
            }
        })?;
        Ok(())
    }

    fn run(self, to: &mut impl Write) -> io::Result<()> {
        let Self { runtime, name_server, first, ports, balancer, visits } = self;
        runtime.block_on(async {
            let announced = Announced::default();
            let server = tokio::spawn(name_server::serve(name_server, announced.clone()));
            let mut places: [Place; PLACES] = ports.map(Place::new);
            for (place, listener) in places.iter_mut().zip(first) {
                place.serve(listener);
                announced.add(place.port);
            }
            visitors::start(balancer, &visits);
            let (mut schedule, began) = (Schedule::new(), Instant::now());
            while !server.is_finished() {
                tokio::time::sleep(PERIOD).await;
                let change = match schedule.next_change() {
                    Change::Start(place) => places[place].start(&announced).await,
                    Change::Stop(place) => Ok(places[place].stop(&announced)),
                };
                let what = change.unwrap_or_else(|error| format!("did not start: {error}"));
                writeln!(to, "{:5.1} s  {what}; {visits}", began.elapsed().as_secs_f64())?;
                to.flush()?;
            }
            server.await.map_err(io::Error::other)?
        })
    }
}

async fn listen(port: u16) -> io::Result<TcpListener> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(at).await.map_err(|error| refused(at, error))
}

/// A place for a backend, by its port.
struct Place {
    port: u16,
    /// Requests that have come to it.
    requests: Arc<AtomicU64>,
    running: Option<Running>,
    /// The backend before, until it has stopped.
    leaving: Option<JoinHandle<()>>,
}
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Place {
    fn new(port: u16) -> Self {
        Self { port, requests: Arc::default(), running: None, leaving: None }
    }

    fn serve(&mut self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel::<()>();
        let (port, routes) = (self.port, routes(self.port, Arc::clone(&self.requests)));
        let task = tokio::spawn(async move {
            // Dropped or used, the other end ends it.
            let stopped = async { _ = stopped.await };
            if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stopped).await {
                log::error!(port, error:%; "demo backend failed");
            }
        });
        self.running = Some(Running { stop, task });
    }

    /// Returns the change in words, once the backend before it has stopped and this one is announced.
    async fn start(&mut self, announced: &Announced) -> io::Result<String> {
        if let Some(leaving) = self.leaving.take() {
            leaving.await.map_err(io::Error::other)?;
        }
        self.serve(listen(self.port).await?);
        let count = announced.add(self.port);
        Ok(format!("127.0.0.1:{} has started and is announced, {count} are", self.port))
    }

    /// Returns the change in words: the backend is no longer announced, and stops later.
    fn stop(&mut self, announced: &Announced) -> String {
        let count = announced.remove(self.port);
        if let Some(running) = self.running.take() {
            self.leaving = Some(tokio::spawn(leave(running, Arc::clone(&self.requests))));
        }
        format!("127.0.0.1:{} stops and is no longer announced, {count} are", self.port)
    }
}

/// Ends a backend once no request comes to it any more.
async fn leave(running: Running, requests: Arc<AtomicU64>) {
    let deadline = Instant::now() + LEAVING_MAX;
    let mut before = requests.load(Ordering::Relaxed);
    while Instant::now() < deadline {
        tokio::time::sleep(QUIET).await;
        let now = requests.load(Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    let Running { stop, mut task } = running;
    drop(stop);
    if tokio::time::timeout(STOPPING_MAX, &mut task).await.is_err() {
        task.abort();
    }
}

fn print_what_to_try(ports: &Ports, token: &Token, to: &mut impl Write) -> io::Result<()> {
    let Ports { balancer, name_server, discovered, .. } = ports;
    let (first, last) = (discovered[0], discovered[PLACES - 1]);
    writeln!(
        to,
        "{FEWEST} to {PLACES} backends run on 127.0.0.1:{first} to :{last}; one starts or stops every {} s. A name server\n\
         on 127.0.0.1:{name_server} announces them, l4lb follows it and balances them on 127.0.0.1:{balancer}, and\n\
         clients send requests all the time.\n\n  \
           l4lb ctl discover; l4lb ctl discover web    the source, and what it lists now\n  \
           l4lb ctl backends                           the backends that are there now\n  \
           l4lb ctl events --follow                    each change as it comes\n  \
           l4lb top                                    all of it, live\n  \
           dig @127.0.0.1 -p {name_server} {SERVICE} SRV\n\n\
         dashboard: http://{}/#token={}\n\n\
         Ctrl-C stops it.",
        PERIOD.as_secs(),
        ports.dashboard(),
        token.text
    )?;
    to.flush()
}
