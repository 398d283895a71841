//! A program that is a node of a mesh itself: it publishes a made-up temperature once a second, and shows what others publish.
//!
//! ```text
//! cargo run --example embed -- first-data                 # founds a mesh, prints a ticket
//! cargo run --example embed -- second-data TICKET         # joins it, in another terminal
//! ```

use std::time::Duration;

use mangrove::client::Heard;
use mangrove::config::Config;
use mangrove::embed::Node;
use mangrove::protocol::TopicSpec;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(data), ticket) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: embed DATA-DIRECTORY [TICKET]");
        std::process::exit(2);
    };
    let any_port = [("listen".to_owned(), "[::]:0".to_owned())];
    let config = Config::load("mangrove.toml".as_ref(), &any_port)?;
    let name = data.replace('/', "-");
    let node = match &ticket {
        Some(ticket) => Node::join(data.as_ref(), &config, &name, ticket).await?,
        None => Node::open(data.as_ref(), &config, &name).await?,
    };
    let client = node.client().await?;
    if ticket.is_none() {
        // Where there is such a section already, that is as good.
        if let Err(refused) = client.section_add("temperature", Default::default()).await {
            eprintln!("{refused}");
        }
        let (ticket, _) = client.invite("member", Duration::from_secs(3_600)).await?;
        println!("a ticket for another node:\n{ticket}");
    }
    let mut heard = client.subscribe("?temperature//").await?;
    let path = format!("temperature/{name}");
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    let mut tenths: i64 = 200;
    loop {
        tokio::select! {
            _ = every_second.tick() => {
                tenths += [-3, 1, 2][(tenths % 3) as usize];
                let value = mangrove_crdt::value::from_json(&mangrove_crdt::definition::TopicType::Int64, &tenths.into())?;
                client.set(&path, value, Some(TopicSpec::of("int64"))).await?;
            }
            event = heard.next() => match event? {
                Heard::Topic { path, event } => println!("{path}: {event:?}"),
                Heard::Synced | Heard::Rewound => {}
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    node.close().await?;
    Ok(())
}
