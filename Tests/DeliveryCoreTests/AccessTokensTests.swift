import DeliveryCore
import Testing

@Suite struct AccessTokensTests {
  private typealias Tokens = AccessTokens<Int>
  private let shop = AccessTokens<Int>.Holder(endpoint: 1, version: 1)

  @Test func oneFetchServesAllThatWaitForIt() {
    var tokens = Tokens()
    #expect(tokens.want(1, for: shop, at: .zero) == .fetch)
    #expect(tokens.want(2, for: shop, at: .seconds(1)) == .wait)
    #expect(tokens.granted("t", to: shop, until: .seconds(10)) == [1, 2])
    #expect(tokens.want(3, for: shop, at: .seconds(9)) == .use("t"))
    #expect(tokens.want(4, for: shop, at: .seconds(10)) == .fetch)
  }

  @Test func aRefusalFailsWhatWaitsAndTheNextTriesAgain() {
    var tokens = Tokens()
    #expect(tokens.want(1, for: shop, at: .zero) == .fetch)
    #expect(tokens.want(2, for: shop, at: .zero) == .wait)
    #expect(tokens.refused(shop) == [1, 2])
    #expect(tokens.want(3, for: shop, at: .zero) == .fetch)
  }

  @Test func aRejectedTokenIsNotUsedAgain() {
    var tokens = Tokens()
    #expect(tokens.want(1, for: shop, at: .zero) == .fetch)
    _ = tokens.granted("t", to: shop, until: .seconds(10))
    tokens.rejected(by: 2)
    #expect(tokens.want(2, for: shop, at: .zero) == .use("t"))
    tokens.rejected(by: 1)
    #expect(tokens.want(3, for: shop, at: .zero) == .fetch)
  }

  @Test func aTokenOfOtherSettingsIsNotUsed() {
    var tokens = Tokens()
    let changed = Tokens.Holder(endpoint: 1, version: 2)
    #expect(tokens.want(1, for: shop, at: .zero) == .fetch)
    #expect(tokens.want(2, for: changed, at: .zero) == .fetch)
    #expect(tokens.granted("old", to: shop, until: .seconds(10)) == [1])
    #expect(tokens.granted("new", to: changed, until: .seconds(10)) == [2])
    #expect(tokens.want(3, for: changed, at: .zero) == .use("new"))
  }
}
