import Testing

@testable import HTTPDelivery

@Suite struct CIDRTests {
  @Test(arguments: [
    "10.0.0.0/8", "0.0.0.0/0", "192.168.1.1/32", "::/0", "fc00::/7", "2001:db8::/32", "::1/128", "10.1.2.4/30",
  ])
  func networkReadsBackAsWritten(text: String) throws {
    #expect(try CIDR(parsing: text).description == text)
  }

  @Test func bareAddressIsANetworkOfOne() throws {
    #expect(try CIDR(parsing: "10.0.0.1").description == "10.0.0.1/32")
    #expect(try CIDR(parsing: "::1").description == "::1/128")
  }

  @Test(arguments: [
    ("10.0.0.1/8", "10.0.0.0/8"), ("192.168.1.0/16", "192.168.0.0/16"), ("fd00::1/8", "fd00::/8"),
    ("1.2.3.4/0", "0.0.0.0/0"),
  ])
  func bitsBeyondThePrefixAreAnErrorThatNamesTheNetwork(text: String, network: String) {
    let error = #expect(throws: CIDRError.self) { try CIDR(parsing: text) }
    #expect(error?.message == "\"\(text)\" has bits set beyond its prefix; the network that contains it is \(network)")
  }

  @Test(arguments: [
    "", "/", "10.0.0.0/", "/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0.0/8 ",
    " 10.0.0.0/8", "10.0.0/8", "10/8", "010.0.0.0/8", "10.0.0.0/8/8", "fe80::%eth0/10", "[::1]/128", "localhost",
    "10.0.0.0/255.0.0.0",
    "10.0.0.0\u{0}/8", "1.2.3.4.5/8", "::ffff/ ", "10.0.0.0/٨",
  ])
  func whatIsNoNetworkIsAnError(text: String) {
    #expect(throws: CIDRError.self) { try CIDR(parsing: text) }
  }

  @Test(arguments: [
    ("10.0.0.0/8", "10.255.255.255", true), ("10.0.0.0/8", "11.0.0.0", false), ("10.0.0.0/8", "9.255.255.255", false),
    ("0.0.0.0/0", "255.255.255.255", true), ("::/0", "1.2.3.4", false), ("0.0.0.0/0", "::1", false),
    ("fe80::/10", "febf:ffff::1", true), ("fe80::/10", "fec0::", false), ("::1/128", "::1", true),
    ("::1/128", "::2", false),
  ])
  func containsExactlyItsAddresses(network: String, address: String, expected: Bool) throws {
    #expect(try CIDR(parsing: network).contains(#require(IPAddress(parsing: address))) == expected)
  }
}
