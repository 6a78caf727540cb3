import Glibc
import Testing

@testable import HTTPDelivery

/// Text that nobody thought of. The seed is fixed, so a failure can be repeated; change it to look elsewhere.
@Suite struct ParserFuzzTests {
  /// SplitMix64.
  private struct Random: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var value = state
      value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
      value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
      return value ^ (value >> 31)
    }

    mutating func text(_ alphabet: [Character], _ counts: ClosedRange<Int>) -> String {
      String((0..<Int.random(in: counts, using: &self)).map { _ in alphabet.randomElement(using: &self) ?? " " })
    }

    /// A few characters replaced, removed, doubled or put in.
    mutating func mutated(_ text: String) -> String {
      var characters = Array(text)
      for _ in 0..<Int.random(in: 1...3, using: &self) where !characters.isEmpty {
        let index = Int.random(in: 0..<characters.count, using: &self)
        switch Int.random(in: 0..<4, using: &self) {
        case 0: characters[index] = Self.strange.randomElement(using: &self) ?? " "
        case 1: characters.remove(at: index)
        case 2: characters.insert(characters[index], at: index)
        default: characters.insert(Self.strange.randomElement(using: &self) ?? " ", at: index)
        }
      }
      return String(characters)
    }

    private static let strange = Array("0127.:/%@[]x#?\\ -_a\u{0}\t\r\n\u{7F}é１。")
  }

  private let policy = EgressPolicy(allowHTTP: true)

  /// What the C library would make of a host as an IPv4 address, in any of the old forms.
  private func oldFormAddress(_ host: String) -> IPAddress? {
    var address = in_addr()
    return inet_aton(host, &address) == 1 ? IPAddress(v4: UInt32(bigEndian: address.s_addr)) : nil
  }

  @Test func hostThatTheCLibraryReadsAsAPrivateAddressIsRefused() throws {
    var random = Random(state: 1)
    let digits = Array("0123456789abcdefxX")
    let favourites = [
      "127", "0x7f", "0177", "10", "0", "1", "192", "168", "0xa9fe", "2130706433", "169", "254", "00", "0x",
    ]
    var refusedCount = 0
    for _ in 0..<20_000 {
      let parts = (0..<Int.random(in: 1...5, using: &random)).map { _ in
        Bool.random(using: &random) ? favourites.randomElement(using: &random) ?? "" : random.text(digits, 1...11)
      }
      let host = parts.joined(separator: ".")
      guard let address = oldFormAddress(host), policy.refusal(of: address) != nil else { continue }
      refusedCount += 1
      #expect(throws: WebhookURLError.self, "\(host) is \(address)") {
        try WebhookURL(validating: "http://\(host)/", policy: policy)
      }
    }
    #expect(refusedCount > 1000)
  }

  @Test func whateverIsAcceptedNamesNoPrivateAddress() {
    var random = Random(state: 2)
    for _ in 0..<20_000 {
      let template = HostileURLs.all.randomElement(using: &random) ?? ""
      let text = random.mutated(template.replacing("$", with: "8080"))
      guard let url = try? WebhookURL(validating: text, policy: policy) else { continue }
      let host = url.host.hasSuffix(".") ? String(url.host.dropLast()) : url.host
      let address = IPAddress(parsing: host) ?? oldFormAddress(host)
      #expect(address.flatMap { policy.refusal(of: $0) } == nil, "\(text.debugDescription)")
      #expect(host != "localhost" && !host.hasSuffix(".localhost"), "\(text.debugDescription)")
      #expect(host.utf8.allSatisfy { HostName.isByte($0) || $0 == 0x2E || $0 == 0x3A }, "\(text.debugDescription)")
      #expect((1...65535).contains(url.port))
    }
  }

  @Test func networkReadsBackAndContainsWhatItsBitsSay() throws {
    var random = Random(state: 3)
    for _ in 0..<20_000 {
      let text = random.text(Array("0123456789abcdef.:/%-"), 1...24)
      if let network = try? CIDR(parsing: text) {
        #expect(try CIDR(parsing: network.description) == network)
        #expect(network.contains(network.network))
      }
      let address = IPAddress(v4: UInt32.random(in: .min ... .max, using: &random))
      let length = Int.random(in: 0...32, using: &random)
      let mask = length == 0 ? 0 : UInt32.max << UInt32(32 - length)
      let base = IPAddress(v4: UInt32(address.bits) & mask)
      let network = try CIDR(parsing: "\(base)/\(length)")
      let other = IPAddress(v4: UInt32.random(in: .min ... .max, using: &random))
      #expect(network.contains(address))
      #expect(network.contains(other) == (UInt32(other.bits) & mask == UInt32(base.bits)))
    }
  }

  @Test func retryAfterIsBoundedAndReadsEveryDateTheCLibraryWrites() {
    var random = Random(state: 4)
    for _ in 0..<20_000 {
      switch RetryAfter(parsing: random.mutated("Sun, 06 Nov 1994 08:49:37 GMT")) {
      case .date(let seconds): #expect((0...253_402_300_800).contains(seconds))
      case .seconds, nil: break
      }
      if case .seconds(let seconds) = RetryAfter(parsing: random.text(Array("0123456789 -+.e"), 0...30)) {
        #expect((0...(366 * 86_400)).contains(seconds))
      }
      var time = time_t(Int.random(in: 0...253_402_300_799, using: &random))
      var parts = tm()
      gmtime_r(&time, &parts)
      var text = [CChar](repeating: 0, count: 64)
      let count = strftime(&text, text.count, "%a, %d %b %Y %H:%M:%S GMT", &parts)
      let written = String(decoding: text.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
      #expect(RetryAfter(parsing: written) == .date(Int(time)), "\(written)")
    }
  }

  @Test func headerThatPassesIsOneLine() throws {
    var random = Random(state: 5)
    let alphabet = Array("aZ09-_:;,\"() \t\r\n\u{0}\u{1B}\u{7F}é")
    var lines = HeaderLines()
    var passedCount = 0
    for _ in 0..<20_000 {
      let (name, value) = (random.text(Array("aZ9-_!: \u{0}\n"), 0...8), random.text(alphabet, 0...12))
      guard HTTPHeader.problem(name: name, value: value) == nil else { continue }
      passedCount += 1
      let list = try lines.fill(["\(name): \(value)"])
      let texts = sequence(first: list) { $0.pointee.next }.map { String(cString: $0.pointee.data) }
      // Whole: no NUL has cut it, and no line break has made two of it.
      #expect(texts.contains("\(name): \(value)"))
      #expect(!texts.contains { $0.utf8.contains { $0 == 0x0D || $0 == 0x0A } })
    }
    #expect(passedCount > 100)
  }

  @Test func hostPatternReadsBackAndMatchesItself() throws {
    var random = Random(state: 6)
    for _ in 0..<20_000 {
      let text = random.mutated(random.text(Array("aB0-_.*"), 1...12))
      guard let pattern = try? HostPattern(parsing: text) else { continue }
      #expect(try HostPattern(parsing: pattern.description) == pattern)
      #expect(pattern.matches(pattern.description.replacing("*", with: "x")))
    }
  }

  @Test func anyBytesMayStandInAResponsesHeaderAndAProxysURL() {
    var random = Random(state: 7)
    for _ in 0..<20_000 {
      var head = ResponseHead()
      for line in ["HTTP/1.1 200 OK\r\n", "Content-Length: 5\r\n"] {
        let bytes = Array(random.mutated(line).utf8)
        let problem = bytes.withUnsafeBytes { head.take($0, isHTTP2: false) }
        if bytes.starts(with: "HTTP/".utf8), problem == nil { #expect(bytes.starts(with: "HTTP/1.".utf8)) }
      }
      _ = try? HTTPProxy(parsing: random.mutated("http://user:pass%20word@proxy.test:3128/"))
    }
  }
}
