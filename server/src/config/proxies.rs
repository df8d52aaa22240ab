//! Which reverse proxies are believed, and what they tell of the client behind them.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// The networks of `TRUSTED_PROXIES`. Empty: nobody is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads addresses and networks like `10.0.0.0/8`, separated by commas; blanks around one are forgiven.
    pub fn parse(value: &str) -> Option<Self> {
        let network = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
        value.split(',').map(|text| network(text.trim())).collect::<Option<_>>().map(Self)
    }

    /// The address of the client that sent a request over a connection from `peer`.
    ///
    /// Each proxy adds the address it was reached from to the end of `X-Forwarded-For`, so the list is read from there for
    /// as long as those who wrote it are trusted: the first address that is not is the client's, and what stands before it
    /// is only what the client claims. An entry that is no address ends the search, as does the 32nd; then the client is
    /// the last trusted one. The port of a client behind a proxy is unknown, which 0 stands for.
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if !self.trusts(peer.ip()) {
            return peer;
        }
        let lists = headers.get_all(FORWARDED_FOR).iter().collect::<Vec<_>>();
        // A value that is no text yields one entry that is no address.
        let entries = lists.into_iter().rev().flat_map(|list| list.to_str().unwrap_or_default().rsplit(','));
        let mut client = None;
        for entry in entries.take(MAX_HOPS) {
            let Some(address) = forwarded(entry.trim()) else { break };
            client = Some(SocketAddr::new(address, 0));
            if !self.trusts(address) {
                break;
            }
        }
        client.unwrap_or(peer)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Reads an entry of the list: an address, of which some proxies tell the port too.
fn forwarded(entry: &str) -> Option<IpAddr> {
    let address = entry.parse().or_else(|_| entry.parse().map(|address: SocketAddr| address.ip()));
    address.or_else(|_| entry.trim_matches(['[', ']']).parse()).ok()
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Entries of `X-Forwarded-For` that are looked at. Nobody has as many proxies; a request head may have thousands of them.
const MAX_HOPS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, lists: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(FORWARDED_FOR, list.parse().unwrap());
        }
        let trusted = TrustedProxies::parse(trusted).unwrap();
        trusted.client(SocketAddr::new(peer.parse().unwrap(), 5), &headers).to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(client("10.0.0.1", "10.0.0.2", &["192.0.2.1"]), "10.0.0.2:5");
        let nobody = TrustedProxies::default();
        let headers = HeaderMap::from_iter([(FORWARDED_FOR, "192.0.2.1".parse().unwrap())]);
        let peer = "127.0.0.1:5".parse().unwrap();
        assert_eq!(nobody.client(peer, &headers), peer);
    }

    #[test]
    fn the_client_is_the_last_who_is_not_trusted() {
        assert_eq!(client("10.0.0.0/8", "10.0.0.2", &["192.0.2.1"]), "192.0.2.1:0");
        assert_eq!(client("10.0.0.0/8", "10.0.0.2", &["198.51.100.9, 192.0.2.1, 10.9.9.9"]), "192.0.2.1:0");
        assert_eq!(client("10.0.0.0/8", "10.0.0.2", &["198.51.100.9, 192.0.2.1", "10.9.9.9"]), "192.0.2.1:0");
        assert_eq!(client("10.0.0.0/8, ::1", "::1", &["2001:db8::7,10.0.0.3"]), "[2001:db8::7]:0");
    }

    #[test]
    fn without_a_word_the_client_is_the_proxy() {
        assert_eq!(client("10.0.0.0/8", "10.0.0.2", &[]), "10.0.0.2:5");
        assert_eq!(client("10.0.0.0/8", "10.0.0.2", &["unknown"]), "10.0.0.2:5");
    }

    #[test]
    fn the_last_trusted_is_the_client_where_the_list_ends_with_them() {
        assert_eq!(client("10.0.0.0/8", "10.0.0.2", &["10.0.0.4, 10.0.0.3"]), "10.0.0.4:0");
        assert_eq!(client("10.0.0.0/8", "10.0.0.2", &["192.0.2.1, garbage, 10.0.0.3"]), "10.0.0.3:0");
    }

    #[test]
    fn an_address_may_have_a_port_and_brackets_and_be_mapped() {
        assert_eq!(client("10.0.0.0/8", "::ffff:10.0.0.2", &["192.0.2.1:443"]), "192.0.2.1:0");
        assert_eq!(client("10.0.0.0/8", "10.0.0.2", &["[2001:db8::7]:443"]), "[2001:db8::7]:0");
        assert_eq!(client("10.0.0.0/8", "10.0.0.2", &["[2001:db8::7]"]), "[2001:db8::7]:0");
    }

    #[test]
    fn a_list_without_end_is_not_read_to_its_end() {
        let list = format!("192.0.2.1{}", ", 10.0.0.3".repeat(MAX_HOPS));
        assert_eq!(client("10.0.0.0/8", "10.0.0.2", &[&list]), "10.0.0.3:0");
    }

    #[test]
    fn only_addresses_and_networks_can_be_trusted() {
        for wrong in ["", "10.0.0.0/33", "proxy", "10.0.0.1,", "*"] {
            assert_eq!(TrustedProxies::parse(wrong), None, "{wrong}");
        }
    }
}
