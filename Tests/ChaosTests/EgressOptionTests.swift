import TestSupport
import Testing

/// A rule about where deliveries may go that cannot be understood must not be skipped, and must say what is wrong.
@Suite struct EgressOptionTests {
  @Test(arguments: [
    ("--deny-network", "10.0.0.1/8", "10.0.0.0/8"), ("--deny-network", "nonsense", "is not a network"),
    ("--deny-network", "::ffff:10.0.0.0/104", "write it as 10.0.0.0/8"),
    ("--allow-host", "https://example.com", "without scheme, port or path"),
    ("--allow-host", "10.0.0.1", "use --allow-network"), ("--allow-host", "a.*.test", "only a whole first label"),
    ("--deny-host", "münchen.de", "punycode"), ("--deny-host", "", "is not a host name"),
  ])
  func ruleThatIsWrongIsExplained(option: String, value: String, words: String) async throws {
    for command in [["dispatch"], ["endpoint", "add", "https://example.com/"]] {
      let result = try await MartletProcess.run(command + [option, value])
      #expect(result.status == 64)
      #expect(result.errors.contains(option))
      #expect(result.errors.contains(words), "\(result.errors)")
    }
  }

  @Test(arguments: ["hunter2", "http://u:hunter2@", "https://u:hunter2@proxy.test:1", "http://u:hunter2@proxy.test"])
  func proxyThatIsWrongIsExplainedWithoutItsPassword(url: String) async throws {
    let option = try await MartletProcess.run("dispatch", "--http-proxy", url)
    let variable = try await MartletProcess.run(["dispatch"], environment: ["MARTLET_HTTP_PROXY": url])
    for (result, source) in [(option, "--http-proxy: "), (variable, "MARTLET_HTTP_PROXY: ")] {
      #expect(result.status == 64)
      #expect(result.errors.contains(source), "\(result.errors)")
      #expect(!result.errors.contains("hunter2"))
    }
  }
}
