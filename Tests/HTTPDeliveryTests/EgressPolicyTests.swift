import Glibc
import Testing

@testable import HTTPDelivery

@Suite struct EgressPolicyTests {
  private func isRefused(_ address: String, _ policy: EgressPolicy = EgressPolicy()) throws -> Bool {
    try policy.refusal(of: ip(address)) != nil
  }

  private func ip(_ text: String) throws -> IPAddress {
    try #require(IPAddress(parsing: text))
  }

  @Test(arguments: [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0",
    "192.31.196.1", "192.52.193.1", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0", "192.175.48.1",
    "198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255",
    "2606:4700:4700::1111", "2000::", "2001:200::1", "2001:1::1", "2001:1::2", "2001:3::1", "2001:4:112::1",
    "2001:20::1",
    "2001:30::1", "2001:db7:ffff::", "2001:db9::", "2003::1", "2620:4f:8000::1", "3ffe::1", "3fff:1000::",
  ])
  func publicUnicastAddressIsAllowed(address: String) throws {
    #expect(try !isRefused(address))
  }

  /// First and last address of every special-purpose network.
  @Test(arguments: [
    "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.0",
    "127.255.255.255", "169.254.0.0", "169.254.169.254", "169.254.255.255", "172.16.0.0", "172.31.255.255", "192.0.0.0",
    "192.0.0.255", "192.0.2.0", "192.0.2.255", "192.88.99.0", "192.88.99.255", "192.168.0.0", "192.168.255.255",
    "198.18.0.0", "198.19.255.255", "198.51.100.0", "198.51.100.255", "203.0.113.0", "203.0.113.255", "224.0.0.0",
    "239.255.255.255", "240.0.0.0", "255.255.255.254", "255.255.255.255",
    "::", "::1", "100::", "100::ffff:ffff:ffff:ffff", "100:0:0:1::1", "2001:2::1", "2001:10::1", "2001:1::4",
    "2001:1ff::1",
    "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "3fff::1", "3fff:fff::1", "5f00::1", "64:ff9b:1::808:808",
    "fc00::", "fdff:ffff::1", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff00::", "ff02::1", "4000::1", "1fff::1",
    "e000::1",
    "::ffff:0:808:808", "0:1::1",
  ])
  func specialPurposeAddressIsRefused(address: String) throws {
    #expect(try isRefused(address))
  }

  @Test(arguments: [
    ("::ffff:10.0.0.1", "10.0.0.1"), ("::10.0.0.1", "10.0.0.1"), ("64:ff9b::10.0.0.1", "10.0.0.1"),
    ("2002:a00:1::", "10.0.0.1"), ("2002:a00:1:1:2:3:4:5", "10.0.0.1"), ("2001:0:808:808::f5ff:fffe", "10.0.0.1"),
    ("2001:0:a00:1::f7f7:f7f7", "10.0.0.1"), ("::ffff:127.0.0.1", "127.0.0.1"),
    ("64:ff9b::a9fe:a9fe", "169.254.169.254"),
    ("::2", "0.0.0.2"), ("::ffff:0.0.0.0", "0.0.0.0"),
  ])
  func carriedIPv4AddressDecides(address: String, carried: String) throws {
    let refusal = try #require(EgressPolicy().refusal(of: ip(address)))
    #expect(refusal.carried?.description == carried)
    #expect(refusal.description.contains("carries \(carried), which is "))
  }

  @Test(arguments: ["::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2001:0:808:808::f7f7:f7f7"])
  func carriedPublicAddressIsAllowed(address: String) throws {
    #expect(try !isRefused(address))
  }

  @Test func allowedNetworkOpensItselfAndNothingElse() throws {
    let policy = EgressPolicy(allowedNetworks: [cidr("10.1.0.0/16"), cidr("fd00::/8")])
    #expect(try !isRefused("10.1.2.3", policy))
    #expect(try isRefused("10.2.0.0", policy))
    #expect(try isRefused("127.0.0.1", policy))
    #expect(try !isRefused("fd12::1", policy))
    #expect(try isRefused("fc00::1", policy))
    // Forms of an allowed IPv4 address are allowed with it.
    #expect(try !isRefused("::ffff:10.1.2.3", policy))
    #expect(try !isRefused("64:ff9b::10.1.2.3", policy))
  }

  @Test func allowingAllOfIPv6DoesNotOpenIPv4InDisguise() throws {
    let policy = EgressPolicy(allowedNetworks: [cidr("::/0")])
    #expect(try isRefused("::ffff:10.0.0.1", policy))
    #expect(try isRefused("64:ff9b::127.0.0.1", policy))
    #expect(try isRefused("2002:a00:1::", policy))
    #expect(try !isRefused("fe80::1", policy))
  }

  @Test(arguments: [
    ("10.0.0.1", "10.0.0.1 is a private address (10.0.0.0/8); allow it with --allow-network 10.0.0.0/8"),
    ("::1", "::1 is a loopback address (::1/128); allow it with --allow-network ::1/128"),
    (
      "::ffff:10.0.0.1",
      "::ffff:10.0.0.1 carries 10.0.0.1, which is a private address (10.0.0.0/8); allow it with --allow-network 10.0.0.0/8"
    ),
    ("4000::1", "4000::1 is outside the global unicast range 2000::/3; allow it with --allow-network 4000::1/128"),
  ])
  func refusalSaysWhyAndWhatToDo(address: String, message: String) throws {
    let refusal = try #require(EgressPolicy().refusal(of: ip(address)))
    #expect(refusal.description == message)
  }

  @Test func adviceInARefusalWorks() throws {
    for address in ["10.0.0.1", "::1", "4000::1", "64:ff9b:1::1", "255.255.255.255", "2001:db8::1"] {
      let refusal = try #require(EgressPolicy().refusal(of: ip(address)))
      let network = try #require(refusal.description.split(separator: " ").last)
      #expect(try !isRefused(address, EgressPolicy(allowedNetworks: [CIDR(parsing: String(network))])))
    }
  }

  @Test func socketAddressIsReadOnlyWhenItIsWhole() {
    var v4 = sockaddr_in()
    v4.sin_family = sa_family_t(AF_INET)
    v4.sin_addr.s_addr = UInt32(0x0A00_0001).bigEndian
    var v6 = sockaddr_in6()
    v6.sin6_family = sa_family_t(AF_INET6)
    withUnsafeMutableBytes(of: &v6.sin6_addr) { $0[15] = 1 }
    let (length4, length6) = (MemoryLayout<sockaddr_in>.size, MemoryLayout<sockaddr_in6>.size)
    #expect(IPAddress(socketAddress: &v4, length: length4)?.description == "10.0.0.1")
    #expect(IPAddress(socketAddress: &v4, length: length4 - 1) == nil)
    #expect(IPAddress(socketAddress: &v6, length: length6)?.description == "::1")
    #expect(IPAddress(socketAddress: &v6, length: length4) == nil)
    #expect(IPAddress(socketAddress: &v4, length: 0) == nil)
    v4.sin_family = sa_family_t(AF_UNIX)
    #expect(IPAddress(socketAddress: &v4, length: length4) == nil)
  }
}
