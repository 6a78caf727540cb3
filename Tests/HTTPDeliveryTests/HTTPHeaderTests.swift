import CLibCurl
import Testing

@testable import HTTPDelivery

@Suite struct HTTPHeaderTests {
  @Test(arguments: [
    ("X-Api-Key", "abc"), ("Authorization", "Bearer a.b-c_d=="), ("a!#$%&'*+-.^_`|~9", "\"q\" \t é"), ("Accept", "x"),
  ])
  func ordinaryHeaderIsFine(name: String, value: String) {
    #expect(HTTPHeader.problem(name: name, value: value) == nil)
  }

  @Test(arguments: [
    "", " ", "a b", "a:", "a\r\nb", "a\u{0}", "ä", "a(b)", "a,b", "\"a\"", String(repeating: "a", count: 257),
  ])
  func nameMustBeAToken(name: String) {
    #expect(HTTPHeader.problem(name: name, value: "x") != nil)
  }

  @Test(arguments: [
    "", " ", "\t", "a\rb", "a\nb", "a\r\nB: c", "a\u{0}b", "a\u{1B}b", "a\u{7F}", String(repeating: "a", count: 4097),
  ])
  func valueMustBeOneVisibleLine(value: String) {
    #expect(HTTPHeader.problem(name: "X-A", value: value) != nil)
  }

  @Test(arguments: [
    "Host", "content-length", "Content-Type", "TRANSFER-ENCODING", "connection", "Expect", "TE", "trailer", "Upgrade",
    "Keep-Alive",
    "Proxy-Authorization", "proxy-x", "webhook-id", "Webhook-Signature", "WEBHOOK-anything",
  ])
  func reservedNameIsRefused(name: String) {
    #expect(HTTPHeader.problem(name: name, value: "x")?.contains("choose another name") == true)
  }
}

@Suite struct HeaderLinesTests {
  private func texts(_ list: UnsafeMutablePointer<curl_slist>) -> [String] {
    Array(sequence(first: list) { $0.pointee.next }).map { String(cString: $0.pointee.data) }
  }

  @Test func linesAreLaidOutInOrder() throws {
    var lines = HeaderLines()
    #expect(try texts(lines.fill(["content-TYPE: a", "B: c"])) == ["Expect:", "content-TYPE: a", "B: c"])
    #expect(try texts(lines.fill([])) == ["Expect:", "Content-Type:"])
  }

  @Test func buffersGrowAsNeeded() throws {
    var lines = HeaderLines()
    let many = (0..<200).map { "X-\($0): \(String(repeating: "y", count: 200))" }
    #expect(try texts(lines.fill(many)) == ["Expect:"] + many + ["Content-Type:"])
    #expect(try texts(lines.fill(["A: b"])) == ["Expect:", "A: b", "Content-Type:"])
  }

  @Test func limitsHold() {
    var lines = HeaderLines()
    #expect(throws: HeaderLines.Problem.tooLarge) { _ = try lines.fill(Array(repeating: "A: b", count: 257)) }
    #expect(throws: HeaderLines.Problem.tooLarge) {
      _ = try lines.fill(["A: " + String(repeating: "b", count: 70_000)])
    }
    #expect(throws: HeaderLines.Problem.malformed) { _ = try lines.fill(["A: b\nC: d"]) }
  }
}
