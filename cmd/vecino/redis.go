package main

import (
	"github.com/spf13/cobra"

	"vecino/cli/redis"
)

func redisCommand() *cobra.Command { return redis.Command() }
