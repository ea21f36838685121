// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// A price feed with the reading functions of Chainlink's AggregatorV3Interface and an answer
/// that its owner sets, with any date: a stale feed is one call away.
contract PriceFeed {
    uint256 public constant version = 4;

    address public immutable owner;
    uint8 public immutable decimals;
    string public description;

    uint80 private round;
    int256 private answer;
    uint256 private updatedAt;

    event AnswerUpdated(int256 indexed current, uint256 indexed roundId, uint256 updatedAt);

    constructor(uint8 decimals_, string memory description_, int256 answer_) {
        owner = msg.sender;
        decimals = decimals_;
        description = description_;
        set(answer_, block.timestamp);
    }

    modifier onlyOwner() {
        require(msg.sender == owner, "only the owner");
        _;
    }

    function setAnswer(int256 next) external onlyOwner {
        set(next, block.timestamp);
    }

    function setAnswerAt(int256 next, uint256 moment) external onlyOwner {
        set(next, moment);
    }

    function latestAnswer() external view returns (int256) {
        return answer;
    }

    function latestRoundData()
        external
        view
        returns (uint80 roundId, int256 answer_, uint256 startedAt, uint256 updatedAt_, uint80 answeredInRound)
    {
        return (round, answer, updatedAt, updatedAt, round);
    }

    function set(int256 next, uint256 moment) private {
        round += 1;
        answer = next;
        updatedAt = moment;
        emit AnswerUpdated(next, round, moment);
    }
}
