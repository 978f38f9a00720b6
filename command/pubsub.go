package command

var pubsubRows = []Row{}
